"""What the last probe of each offer found: kept in a table, so that a restart knows it."""

from typing import Literal

import msgspec

from app.clock import Clock
from app.routing.health import Health, OfferKey
from app.storage.database import Database, Transaction

KEPT_MS = 30 * 86_400_000
_encode = msgspec.json.Encoder().encode


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the last probe of an offer found; None is what it could not tell, ever.

    ``failures`` counts the probes that failed in a row. ``throughput`` is output tokens per second
    of the whole call, ``reason`` says why the status is error.
    """

    provider: str
    model: str
    upstream_id: str
    checked_at_ms: int
    status: Literal["live", "error"]
    reason: str = ""
    failures: int = 0
    first_token_latency_ms: int | None = None
    throughput: float | None = None
    supports_tools: bool | None = None
    supports_structured_output: bool | None = None
    supports_json_object: bool | None = None
    reports_usage_in_streams: bool | None = None


_decode = msgspec.json.Decoder(ProbeResult).decode


class ProbeResults:
    """The probe_results table, in memory."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._results: dict[OfferKey, ProbeResult] = {}

    async def load(self, health: Health | None = None) -> None:
        """Read what was found before this start, and tell ``health`` the figures."""
        oldest_ms = self._clock.now_ms() - KEPT_MS
        for (row,) in await self._database.read(
            "SELECT result FROM probe_results WHERE checked_at_ms >= ?", (oldest_ms,)
        ):
            try:
                found = _decode(row)
            except msgspec.MsgspecError:
                continue  # of another version: the offer is tried again
            self._results[found.provider, found.model] = found
            if health is not None:
                key = (found.provider, found.model)
                health.measured(key, found.first_token_latency_ms, found.throughput)

    def of(self, key: OfferKey) -> ProbeResult | None:
        """The last result of an offer."""
        return self._results.get(key)

    async def keep(self, result: ProbeResult) -> None:
        """Take over a new result."""
        self._results[result.provider, result.model] = result
        row = (result.provider, result.model, result.checked_at_ms, _encode(result))

        def upsert(tx: Transaction) -> None:
            tx.execute(
                "INSERT INTO probe_results VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " checked_at_ms = excluded.checked_at_ms, result = excluded.result",
                row,
            )

        await self._database.write(upsert, is_note=True)
