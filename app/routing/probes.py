"""Tries every offer from time to time with a few small calls: whether it works, how fast it is, and
what it can do. What that costs is the house's.

An offer is tried at once when it appears, then every ``every_s``, and every ``failing_every_s``
while it fails (once more after a minute first, since one failure may be an accident). Results are
kept in a table: a restart goes on where it was, and tries at once what failed or was tried longer
than ``failing_every_s`` ago. Local offers are left out; their runtime says how they are.
"""

import logging
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from app.clock import Clock
from app.ledger.entries import ProbeRow
from app.routing.health import Health, OfferKey
from app.routing.key_pools import KeyPools
from app.routing.lending import Lender
from app.routing.probe_checks import checks_of
from app.routing.probe_results import ProbeResult, ProbeResults
from app.routing.probe_trial import NO_RESULT, Trial
from plugins.contract import FailureKind, Offer, Price, Usage

log = logging.getLogger("turnpike.routing")
LOCAL = "local"
AGAIN_SECONDS = 60.0  # after a first failure, or when no key was ready
_SPREAD = 0.1  # the part of an interval by which offers are tried at different times
# What says that the offer is ill; the rest is about the key, the account or the request.
_ILLNESS = frozenset(
    {
        FailureKind.CONNECT,
        FailureKind.TIMEOUT,
        FailureKind.OVERLOADED,
        FailureKind.UPSTREAM,
        FailureKind.PROTOCOL,
        FailureKind.CRASHED,
    }
)


class House(Protocol):
    """Who pays: ``app.ledger.store.LedgerStore``."""

    async def book_probe(self, probe_id: str, row: ProbeRow, cost_nano_usd: int) -> None:
        """Once per id."""
        ...


class ProbeRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says: the providers that are tried, and how often, in seconds."""

    providers: frozenset[str]
    every_s: float = 21_600.0
    failing_every_s: float = 3_600.0


class Prober:
    """Tries offers, and knows when each one's turn is.

    ``rate`` makes nano-USD of what a call used (``app.billing.rating``).
    """

    def __init__(
        self,
        *,
        results: ProbeResults,
        health: Health,
        keys: KeyPools,
        house: House,
        clock: Clock,
        rate: Callable[[Usage, Price], int],
        adapters: Lender,
        rules: ProbeRules,
    ) -> None:
        self.results = results
        self._health = health
        self._keys = keys
        self._house = house
        self._clock = clock
        self._rate = rate
        self._next_ns: dict[OfferKey, int] = {}
        self._adapters = adapters
        self.replace(rules)

    def replace(self, rules: ProbeRules) -> None:
        """Take over a new configuration."""
        self._rules = rules
        self._is_new = True

    def any_due(self) -> bool:
        """Whether an offer that was there at the last ``due`` has its turn, or may have."""
        now = self._clock.monotonic_ns()
        return self._is_new or min(self._next_ns.values(), default=now + 1) <= now

    def due(self, offers: Iterable[Offer]) -> list[Offer]:
        """The offers whose turn it is, longest overdue first; the others are forgotten."""
        now, next_ns, found = self._clock.monotonic_ns(), {}, []
        self._is_new = False
        for offer in offers:
            if offer.provider == LOCAL or offer.provider not in self._rules.providers:
                continue
            key = (offer.provider, offer.model)
            at = self._next_ns.get(key)
            next_ns[key] = at = self._first(offer, now) if at is None else at
            if at <= now:
                found.append((at, offer))
        self._next_ns = next_ns
        return [offer for _, offer in sorted(found, key=lambda each: each[0])]

    async def probe(self, offer: Offer) -> ProbeResult | None:
        """Try one offer now; None where there was no way to tell. Raises nothing but cancellation
        and what the database does."""
        key, checks = (offer.provider, offer.model), checks_of(offer)
        self._wait(key, self._rules.every_s)
        if not checks:
            return None
        secret = self._keys.pick(offer.provider)
        if secret is None:
            self._wait(key, max(AGAIN_SECONDS, self._keys.rests_for_s(offer.provider)))
            return None
        trial = Trial(offer, self._adapters, secret, self._clock)
        try:
            for check in checks:
                if not await trial.run(check):
                    break
        finally:
            await self._book(trial)
        return await self._judge(trial)

    async def _judge(self, trial: Trial) -> ProbeResult | None:
        offer, failure = trial.offer, trial.failure
        key = (offer.provider, offer.model)
        if failure is not None and failure.kind is FailureKind.RATE_LIMITED:
            self._keys.cool(trial.key, failure.retry_after_s)
        elif failure is not None and failure.kind is FailureKind.AUTH:
            self._keys.refuse(trial.key)
        elif failure is None:
            self._keys.accepted(trial.key)
        if not trial.decided and failure is not None and failure.kind in NO_RESULT:
            self._wait(key, max(AGAIN_SECONDS, self._keys.rests_for_s(offer.provider)))
            return None
        before = self.results.of(key)
        result = trial.result(before, self._clock.now_ms())
        if trial.answered:
            self._health.succeeded(key)
            self._health.measured(key, result.first_token_latency_ms, trial.speed, trial.tokens)
        elif failure is not None and failure.kind in _ILLNESS:
            self._health.failed(key, failure.retry_after_s)
        if result.status == "error" and (before is None or before.reason != result.reason):
            log.warning("%s of %s: %s", offer.model, offer.provider, result.reason)
        self._wait(key, self.interval(result))
        await self.results.keep(result)
        return result

    async def _book(self, trial: Trial) -> None:
        """The house pays for all calls of a probe, also of one that is cut short."""
        if not trial.used:
            return
        try:
            cost = sum(self._rate(usage, trial.offer.price) for usage in trial.used)
            await self._house.book_probe(trial.id, trial.row(self._clock.now_ms()), cost)
        except ValueError as error:
            log.error("probe %s: what it cost cannot be booked: %s", trial.id, error)

    def _first(self, offer: Offer, now: int) -> int:
        """When an offer that is seen for the first time since the start has its turn."""
        found = self.results.of((offer.provider, offer.model))
        if found is None or found.status == "error" or found.upstream_id != offer.upstream_id:
            return now
        age_s = max(0, self._clock.now_ms() - found.checked_at_ms) / 1000
        if age_s >= self._rules.failing_every_s:
            return now
        return now + int((self._spread(found, self._rules.every_s) - age_s) * 1e9)

    def interval(self, result: ProbeResult) -> float:
        """Seconds from a result to the next probe of its offer."""
        if result.status == "live":
            return self._spread(result, self._rules.every_s)
        if result.failures == 1:
            return min(AGAIN_SECONDS, self._rules.failing_every_s)
        return self._spread(result, self._rules.failing_every_s)

    def _spread(self, result: ProbeResult, seconds: float) -> float:
        """A little less, for each offer its own part: those that came together drift apart."""
        part = zlib.crc32(f"{result.provider} {result.model}".encode()) / 2**32
        return seconds * (1 - _SPREAD * part)

    def _wait(self, key: OfferKey, seconds: float) -> None:
        self._next_ns[key] = self._clock.monotonic_ns() + int(seconds * 1e9)
