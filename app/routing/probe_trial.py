"""One probe of one offer: its calls through the adapter, and what they showed and used."""

import asyncio
import logging
from contextlib import aclosing
from typing import Any, cast

from app.clock import Clock
from app.ids import new_call_id
from app.ledger.entries import ProbeRow
from app.routing import probe_checks
from app.routing.key_pools import ProviderKey
from app.routing.lending import Lender
from app.routing.probe_checks import Check, Heard, ruled_out, verdict
from app.routing.probe_results import ProbeResult
from plugins.contract import AdapterError, FailureKind, Offer, Usage

log = logging.getLogger("turnpike.routing")
GRACE_SECONDS = 5.0
# What says nothing about the offer at all: it is tried again soon, and keeps its last result.
NO_RESULT = frozenset({FailureKind.RATE_LIMITED, FailureKind.LOADING})


class Trial:
    """One probe of one offer: its calls, and what they showed."""

    def __init__(self, offer: Offer, adapters: Lender, key: ProviderKey, clock: Clock) -> None:
        self.id = new_call_id()
        self.offer = offer
        self.key = key
        self.used: list[Usage] = []
        self.failure: AdapterError | None = None
        self.decided = False  # whether the first check told anything about the offer
        self.answered = False  # whether it had an answer, however slow
        self.tokens = 0
        self.speed: float | None = None
        self._reason = ""
        self._calls = 0
        self._first_token_ms: int | None = None
        self._usage_in_streams: bool | None = None
        self._shown: dict[str, bool | None] = dict.fromkeys(ruled_out(offer), False)
        self._adapters = adapters
        self._clock = clock

    async def run(self, check: Check) -> bool:
        """Make one call; whether the next one is worth making."""
        is_first, self._calls = not self._calls, self._calls + 1
        heard = Heard(self._clock.monotonic_ns())
        try:
            await self._listen(check, heard)
        except AdapterError as error:
            if error.usage is not None:
                self.used.append(error.usage)
            self.failure = error
            if not is_first:
                refused = error.kind is FailureKind.BAD_REQUEST
                self._shown[check.name] = False if refused else None
                return refused
            self.decided = error.kind not in NO_RESULT
            self._reason = f"{error.kind}: {error.message[:200]}"
            return False
        self.failure = None
        if heard.usage is not None:
            self.used.append(heard.usage)
        shown, why = verdict(check, heard)
        if not is_first:
            self._shown[check.name] = shown
            return True
        self.decided, self.answered = True, shown is True or heard.first_ns is not None
        self._reason = "" if shown else why
        self._measure(check, heard)
        return bool(shown)

    def row(self, at_ms: int) -> ProbeRow:
        """What all calls used."""
        return ProbeRow(
            at_ms=at_ms,
            provider=self.offer.provider,
            model=self.offer.model,
            calls=self._calls,
            input_tokens=sum(
                each.input_tokens + each.cache_read_tokens + each.cache_write_tokens
                for each in self.used
            ),
            output_tokens=sum(each.output_tokens + each.reasoning_tokens for each in self.used),
        )

    def result(self, before: ProbeResult | None, at_ms: int) -> ProbeResult:
        """What was found; what could not be told this time is as it was."""
        if before is not None and before.upstream_id != self.offer.upstream_id:
            before = None

        def shown(name: str, field: str) -> bool | None:
            found = self._shown.get(name)
            return getattr(before, field, None) if found is None else found

        in_streams, failures = self._usage_in_streams, 0 if before is None else before.failures
        return ProbeResult(
            provider=self.offer.provider,
            model=self.offer.model,
            upstream_id=self.offer.upstream_id,
            checked_at_ms=at_ms,
            status="error" if self._reason else "live",
            reason=self._reason,
            failures=failures + 1 if self._reason else 0,
            first_token_latency_ms=self._first_token_ms,
            throughput=None if self.speed is None else round(self.speed, 2),
            supports_tools=shown(probe_checks.TOOLS, "supports_tools"),
            supports_structured_output=shown(
                probe_checks.JSON_SCHEMA, "supports_structured_output"
            ),
            supports_json_object=shown(probe_checks.JSON_OBJECT, "supports_json_object"),
            reports_usage_in_streams=(
                getattr(before, "reports_usage_in_streams", None)
                if in_streams is None
                else in_streams
            ),
        )

    def _measure(self, check: Check, heard: Heard) -> None:
        if check.name != probe_checks.STREAM or heard.usage is None:
            return
        self._first_token_ms = heard.first_token_ms()
        self.speed = heard.tokens_per_second(check.tokens_max)
        self.tokens = heard.usage.output_tokens + heard.usage.reasoning_tokens
        self._usage_in_streams = not heard.usage.estimated

    async def _listen(self, check: Check, heard: Heard) -> None:
        order = check.call(self.offer, self.id, self.key.secret)
        try:
            with self._adapters.use(self.offer.provider) as adapter:
                async with asyncio.timeout(order.deadline_s + GRACE_SECONDS):
                    events = cast(Any, adapter.infer(order))  # an async generator, by contract
                    async with aclosing(events):
                        async for event in events:
                            heard.take(event, self._clock.monotonic_ns())
        except AdapterError:
            raise
        except TimeoutError as error:
            raise AdapterError(FailureKind.TIMEOUT, "the adapter ignored its deadline") from error
        except Exception as error:
            log.exception("probe %s: a fault of the adapter", self.id)
            raise AdapterError(FailureKind.PROTOCOL, "the adapter failed") from error
        if heard.usage is None:
            raise AdapterError(FailureKind.PROTOCOL, "the adapter reported no usage")
