"""Costs that come later: providers are asked, each minute, what ended calls cost (ledger.md I14).

Hugging Face's partner billing protocol: ``POST url {"requestIds": […]}`` is answered with
``{"requests": [{"requestId", "costNanoUsd"}]}``. Until a good figure has come the hold stays as a
placeholder. The ledger gives up on who waits for more than 30 minutes: such a call is asked for
once more at most, in the minute in which it is given up, and never after (I15). What a provider
answers is not trusted: a figure counts only for an id that was asked, and only where it is a number
from 0 to ``AMOUNT_NANO_USD_MAX``.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from itertools import islice

import httpx
import msgspec

from app.billing.cost_answers import Costs, UnreadableAnswer, read_costs
from app.clock import Clock
from app.ledger.entries import PendingCost
from app.ledger.store import LedgerStore, LedgerUnavailable

IDS_PER_REQUEST_MAX = 10_000
PENDING_MAX = 100_000
"""Per provider and poll: ten requests' worth, oldest first."""
LATE_MS_MAX = 60_000
"""One poll's distance: how long after its time is over a call may still be asked for."""
ANSWER_BYTES_MAX = 32 * 1024 * 1024
ANSWER_S_MAX = 20
POLL_S_MAX = 45
"""One provider, all its requests: polls start each minute."""
_CONNECT_S_MAX = 5
_SETTLED_TOGETHER = 512  # one commit of the ledger takes about as many

log = logging.getLogger("turnpike.billing")


class BillingApi(msgspec.Struct, frozen=True, kw_only=True):
    """Where a provider is asked for costs; ``api_key`` is sent as a bearer key."""

    provider: str
    url: str
    api_key: str | None = None


class _NoAnswer(Exception):
    """The provider's billing API said nothing of use; the message is for the log."""


class Resolution:
    """Asks the billing APIs and settles with what they say."""

    def __init__(
        self, ledger: LedgerStore, apis: Sequence[BillingApi], clock: Clock, user_agent: str
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._apis = tuple(apis)
        self._user_agent = user_agent
        self._tls: ssl.SSLContext | None = None

    def replace(self, apis: Sequence[BillingApi]) -> None:
        """Ask these from the next poll on."""
        self._apis = tuple(apis)

    async def poll(self) -> int:
        """Ask every provider once, side by side, for all costs that are missing; how many came.

        What a provider or the network does wrong is only logged. Raises LedgerUnavailable.
        """
        polls = (self._poll(api) for api in self._apis)
        resolved = 0
        for result in await asyncio.gather(*polls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            resolved += result
        return resolved

    async def _poll(self, api: BillingApi) -> int:
        too_late_ms = self._clock.now_ms() - LATE_MS_MAX
        pending = [
            waiting
            for waiting in await self._ledger.pending_costs(api.provider, PENDING_MAX)
            if waiting.give_up_at_ms > too_late_ms
        ]
        if not pending:
            return 0
        resolved = 0
        if self._tls is None:  # reads all certificates of the system: long for the event loop
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        try:
            async with asyncio.timeout(POLL_S_MAX), self._client(api, self._tls) as client:
                for first in range(0, len(pending), IDS_PER_REQUEST_MAX):
                    batch = pending[first : first + IDS_PER_REQUEST_MAX]
                    resolved += await self._ask(client, api, batch)
        except TimeoutError:
            log.warning("the billing API of %s took too long for all that was asked", api.provider)
        return resolved

    async def _ask(
        self, client: httpx.AsyncClient, api: BillingApi, batch: list[PendingCost]
    ) -> int:
        """One request: how many of its calls were settled."""
        calls = {pending.upstream_id: pending.call_id for pending in batch}
        try:
            body = await _post(client, api.url, list(calls))
            # Up to 32 MiB of JSON: too long for the event loop.
            costs = await asyncio.to_thread(read_costs, body, calls.keys())
        except (_NoAnswer, UnreadableAnswer) as error:
            log.warning("the billing API of %s: %s; asked again later", api.provider, error)
            return 0
        _report(api.provider, costs)
        return await self._settle({calls[id_]: cost for id_, cost in costs.by_id.items()})

    async def _settle(self, costs: Mapping[str, int]) -> int:
        """Charge what the calls cost; one that the ledger refuses does not stop the others."""
        settled = 0
        left = iter(costs.items())
        while some := list(islice(left, _SETTLED_TOGETHER)):
            results = await asyncio.gather(
                *(self._ledger.resolve_cost(call_id, cost) for call_id, cost in some),
                return_exceptions=True,
            )
            for (call_id, _), result in zip(some, results, strict=True):
                if isinstance(result, LedgerUnavailable) or (
                    isinstance(result, BaseException) and not isinstance(result, Exception)
                ):
                    raise result
                if isinstance(result, Exception):
                    log.error("call %s: its cost came and was refused", call_id, exc_info=result)
                else:
                    settled += 1
        return settled

    def _client(self, api: BillingApi, tls: ssl.SSLContext) -> httpx.AsyncClient:
        """A client of this poll's own: whatever a timeout leaves in its pool ends with it
        (reliability.md D3)."""
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": self._user_agent,
        }
        if api.api_key:
            headers["authorization"] = f"Bearer {api.api_key}"
        return httpx.AsyncClient(
            headers=headers,
            verify=tls,
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(ANSWER_S_MAX, connect=_CONNECT_S_MAX),
        )


async def _post(client: httpx.AsyncClient, url: str, ids: list[str]) -> bytes:
    """The body of a good answer. Raises _NoAnswer for everything else."""
    sent = msgspec.json.encode({"requestIds": ids})
    try:
        async with (
            asyncio.timeout(ANSWER_S_MAX),
            client.stream("POST", url, content=sent) as answer,
        ):
            if not answer.is_success:
                raise _NoAnswer(f"status {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise _NoAnswer("the answer is encoded, which was not asked for")
            received = bytearray()
            async for piece in answer.aiter_raw():
                received += piece
                if len(received) > ANSWER_BYTES_MAX:
                    raise _NoAnswer(f"more than {ANSWER_BYTES_MAX} bytes")
            return bytes(received)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # TimeoutError is an OSError
        raise _NoAnswer(f"{type(error).__name__}: {str(error)[:200]}") from error


def _report(provider: str, costs: Costs) -> None:
    """What is wrong with an answer, and needs somebody's look. Ids are those that we asked for."""
    if costs.conflicting:
        log.error(
            "the billing API of %s gave %d requests two costs, such as %s: the first counts",
            provider,
            len(costs.conflicting),
            min(costs.conflicting),
        )
    if costs.refused:
        log.error(
            "the billing API of %s gave %d requests a cost that cannot be one, such as %s:"
            " asked again",
            provider,
            len(costs.refused),
            min(costs.refused),
        )
