"""Sends events to the operator's webhook, as the Standard Webhooks convention says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: the
headers ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``, the last over
``id.timestamp.body``. The rows of the table are the queue, so an event is sent at least once, under
the same id every time. What fails is tried again later and later; those of the same subject wait.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import secrets
from urllib.parse import urlsplit

import httpx
import msgspec

from app.billing.amounts import decimal_usd
from app.billing.events import Event, EventLog
from app.clock import Clock
from app.errors import ConfigError
from app.storage.database import LedgerUnavailable
from app.version import VERSION

_logger = logging.getLogger(__name__)

ANSWER_BYTES_MAX = 64 * 1024
CONNECT_SECONDS_MAX = 5.0
SENT_AT_ONCE_MAX = 32
FAILURES_MAX = 3
_FIRST_WAIT_MS = 15_000
_WAIT_MS_MAX = 3_600_000


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Where events go. ``key`` signs them; without one they are not signed.

    A try takes ``answer_seconds_max`` at most, from connecting to the last byte that is read.
    """

    url: str
    key: bytes | None = None
    answer_seconds_max: float = 20.0


def webhook_to(url: str, secret: str | None) -> Webhook:
    """The webhook of the configuration; ``secret`` is resolved. Raises ConfigError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"webhook.url: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigError("webhook.url: expected http://HOST/… or https://HOST/…")
    key = None if secret is None else signing_key(secret, where="webhook.secret")
    return Webhook(url=url, key=key)


def signing_key(secret: str, *, where: str) -> bytes:
    """The bytes of a secret: ``whsec_`` and base64, else the text itself. Raises ConfigError."""
    prefix, _, encoded = secret.partition("whsec_")
    if prefix or not encoded:
        return secret.encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ConfigError(f"{where}: what follows whsec_ is not base64") from error


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """``v1,`` and the base64 of the HMAC-SHA256 over id, timestamp and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def wait_ms(attempts: int) -> int:
    """How long until the next try after so many: anything up to a bound that doubles to 1 h."""
    bound = min(_FIRST_WAIT_MS << min(attempts, 16), _WAIT_MS_MAX)
    return secrets.randbelow(bound) + 1


class EventDelivery:
    """The job. Runs do not overlap, whoever starts them."""

    def __init__(self, events: EventLog, clock: Clock, webhook: Webhook) -> None:
        self._events = events
        self._clock = clock
        self._webhook = webhook
        self._running = asyncio.Lock()
        self._over = False

    async def run(self) -> None:
        """Send what is due, until nothing is, or until the receiver seems to be down.

        Once the database takes no more writes this does nothing any more: what was sent could not
        be noted, and would be sent again and again.
        """
        async with self._running:
            if self._over:
                return
            try:
                await self._send_due()
            except LedgerUnavailable:
                self._over = True
                raise

    async def _send_due(self) -> None:
        if late := await self._events.give_up(self._clock.now_ms()):
            _logger.warning("%d events were not delivered in three days; given up", late)
        due = await self._due()
        if not due:
            return
        async with self._client() as client:
            failures = 0
            while due and failures < FAILURES_MAX:
                for event in due:
                    failures = 0 if await self._send(client, event) else failures + 1
                    if failures == FAILURES_MAX:
                        break
                due = await self._due()

    async def _due(self) -> list[Event]:
        return await self._events.due(self._clock.now_ms(), SENT_AT_ONCE_MAX)

    async def _send(self, client: httpx.AsyncClient, event: Event) -> bool:
        """One try, and its record. Whether it was taken."""
        try:
            async with asyncio.timeout(self._webhook.answer_seconds_max):
                fault, least_ms = await self._post(client, event)
        except (httpx.HTTPError, OSError) as error:
            fault, least_ms = str(error) or type(error).__name__, 0
        now_ms = self._clock.now_ms()
        if not fault:
            await self._events.delivered(event, now_ms)
            return True
        again = await self._events.failed(event, now_ms + max(wait_ms(event.attempts), least_ms))
        _logger.log(
            logging.INFO if again else logging.WARNING,
            "the webhook did not take event %d (%s), try %d: %s%s",
            *(event.id, event.kind, event.attempts + 1, fault),
            "" if again else "; given up, it stays on record",
        )
        return False

    async def _post(self, client: httpx.AsyncClient, event: Event) -> tuple[str, int]:
        """What was wrong with the answer, or nothing; and how long it asks to wait."""
        body = body_of(event)
        message_id, timestamp = f"evt_{event.at_ms}_{event.id}", str(self._clock.now_ms() // 1000)
        headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
        if self._webhook.key is not None:
            headers["webhook-signature"] = signature(self._webhook.key, message_id, timestamp, body)
        async with client.stream(
            "POST", self._webhook.url, content=body, headers=headers
        ) as answer:
            size = 0
            async for piece in answer.aiter_raw():
                size += len(piece)
                if size > ANSWER_BYTES_MAX:
                    break
            if answer.is_success:
                return "", 0
            asked = answer.headers.get("retry-after", "")
            seconds = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 0
            return f"it answered {answer.status_code}", min(seconds * 1000, _WAIT_MS_MAX)

    def _client(self) -> httpx.AsyncClient:
        """A fresh one for each run: nothing of an earlier failure stays in its pool."""
        return httpx.AsyncClient(
            timeout=httpx.Timeout(self._webhook.answer_seconds_max, connect=CONNECT_SECONDS_MAX),
            follow_redirects=False,
            # A proxy from the environment is for the Internet, not for this machine or network.
            trust_env=not _is_near(urlsplit(self._webhook.url).hostname or ""),
            headers={"content-type": "application/json", "user-agent": f"turnpike/{VERSION}"},
        )


def body_of(event: Event) -> bytes:
    """The JSON that is sent: the same at every try."""
    return msgspec.json.encode(
        {
            "id": event.id,
            "kind": event.kind,
            "at": event.at,
            "scope": event.scope,
            "subject": {"id": event.subject_id, "name": event.subject_name},
            "period": event.period,
            "amount_nano_usd": event.amount_nano_usd,
            "amount_usd": decimal_usd(event.amount_nano_usd),
            "limit_nano_usd": event.limit_nano_usd,
            "limit_usd": decimal_usd(event.limit_nano_usd),
            "payer": {"id": event.payer_id, "name": event.payer_name},
        }
    )


def _is_near(host: str) -> bool:
    """Whether a host is this machine, or is named by an address of a private network."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
