"""Every few seconds: tries the offers whose turn it is, two at once, and one of each provider."""

import asyncio
import logging
from collections import deque
from typing import Protocol

from app.clock import Clock
from app.config import Config
from app.routing.catalog import Snapshot
from app.routing.probes import Prober, ProbeRules
from plugins.contract import Offer

AT_ONCE_MAX = 2
# A round takes no further offers after this long: the next one starts from the catalog of its day.
ROUND_SECONDS_MAX = 60.0
_logger = logging.getLogger(__name__)


class Offered(Protocol):
    """What can be called; ``app.routing.catalog.Catalog``."""

    def snapshot_at(self, now_ms: int) -> Snapshot:
        """The same one until something changes."""
        ...


class OfferProbes:
    """The job."""

    def __init__(self, prober: Prober, catalog: Offered, clock: Clock) -> None:
        self._prober = prober
        self._catalog = catalog
        self._clock = clock
        self._seen: Snapshot | None = None

    async def run(self) -> None:
        """One round. Whatever goes wrong, the next comes."""
        snapshot = self._catalog.snapshot_at(self._clock.now_ms())
        if snapshot is self._seen and not self._prober.any_due():
            return
        self._seen = snapshot
        waiting: dict[str, deque[Offer]] = {}
        offers = (offer for each in snapshot.models.values() for offer in each)
        for offer in self._prober.due(offers):
            waiting.setdefault(offer.provider, deque()).append(offer)
        until_ns = self._clock.monotonic_ns() + int(ROUND_SECONDS_MAX * 1e9)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE_MAX, len(waiting))):
                    group.create_task(self._work(waiting, until_ns))
        except asyncio.CancelledError:
            return  # The scheduler stops; what the probes in progress used is booked.

    async def _work(self, waiting: dict[str, deque[Offer]], until_ns: int) -> None:
        """Take one provider's next offer after the other; a provider that is being tried is not in
        ``waiting``."""
        while waiting and self._clock.monotonic_ns() < until_ns:
            provider = next(iter(waiting))
            offers = waiting.pop(provider)
            try:
                await self._prober.probe(offers.popleft())
            except Exception:
                _logger.exception("a probe of %s failed in itself; its turn comes again", provider)
            if offers:
                waiting[provider] = offers


def probe_rules(config: Config) -> ProbeRules:
    """Who is tried and how often, as the configuration says; nobody where probes are off."""
    routing = config.routing
    providers = (each.id for each in config.providers if routing.probes and each.probe)
    return ProbeRules(
        providers=frozenset(providers),
        every_s=routing.probe_every_seconds,
        failing_every_s=routing.probe_failing_every_seconds,
    )
