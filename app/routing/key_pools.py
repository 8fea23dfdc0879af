"""The operator's keys at each provider: calls are spread over them by weight, and a key that was
refused for a while rests. A provider that needs no key has one entry without a secret, so that it
rests by the same rule.
"""

import logging
from collections.abc import Iterable

import msgspec

from app.clock import Clock

log = logging.getLogger("turnpike.routing")
COOL_SECONDS_DEFAULT = 5.0  # a 429 without Retry-After
COOL_SECONDS_MAX = 60.0
REFUSED_SECONDS = 60.0  # a 401, 402 or 403: somebody has to mend it, and may have by then


class ProviderKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key. ``name`` tells it from the provider's others in logs and never holds any of it;
    ``owner_id`` is the user or org whose own key it is, None for the operator's.
    """

    provider: str
    name: str
    secret: str | None
    weight: int = 1
    owner_id: str | None = None

    def __repr__(self) -> str:
        return f"ProviderKey({self.provider}, {self.name})"


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """How a key stands: ready, resting (429) or refused (401, 403), and for how much longer."""

    name: str
    weight: int
    state: str
    seconds_left: float


class _Slot:
    """A key of a pool. ``credit`` is for smooth weighted turns, as nginx takes them."""

    __slots__ = ("credit", "key", "refused", "resting_until_ns")

    def __init__(self, key: ProviderKey) -> None:
        self.key = key
        self.credit = 0
        self.refused = False
        self.resting_until_ns = 0


class KeyPools:
    """All pools. Users' own keys have no slot: they never rest here, and fail by themselves."""

    def __init__(self, keys: Iterable[ProviderKey], clock: Clock) -> None:
        self._clock = clock
        self._pools: dict[str, list[_Slot]] = {}
        self._rested = False  # whether any key ever had to
        self.replace(keys)

    def replace(self, keys: Iterable[ProviderKey]) -> None:
        """Take over the keys of a new configuration; keys that stay keep their rest."""
        before = {
            (slot.key.provider, slot.key.secret): slot
            for pool in self._pools.values()
            for slot in pool
        }
        pools: dict[str, list[_Slot]] = {}
        for key in keys:
            slot = before.get((key.provider, key.secret)) or _Slot(key)
            slot.key = key
            pools.setdefault(key.provider, []).append(slot)
        self._pools = pools

    def pick(self, provider: str) -> ProviderKey | None:
        """The key whose turn it is; None while all of them rest."""
        pool = self._pools.get(provider)
        if pool is None:
            return ProviderKey(provider=provider, name="none", secret=None)
        if len(pool) == 1:
            slot = pool[0]
            if not slot.resting_until_ns:
                return slot.key
        now = self._clock.monotonic_ns()
        ready = [slot for slot in pool if slot.resting_until_ns <= now]
        if not ready:
            return None
        for slot in ready:
            slot.credit += slot.key.weight
        best = max(ready, key=lambda slot: slot.credit)
        best.credit -= sum(slot.key.weight for slot in ready)
        return best.key

    def rests_for_s(self, provider: str) -> float:
        """Seconds until the first of the provider's keys is ready; 0 where one is."""
        pool = self._pools.get(provider)
        if pool is None or not pool[0].resting_until_ns:
            return 0.0
        first = min(slot.resting_until_ns for slot in pool)
        return max(0.0, (first - self._clock.monotonic_ns()) / 1e9)

    def refused(self, provider: str) -> bool:
        """Whether the provider refuses every key of its."""
        pool = self._pools.get(provider, ())
        return bool(pool) and all(slot.refused for slot in pool)

    def cool(self, key: ProviderKey, retry_after_s: float | None) -> None:
        """The provider limits the rate of this key."""
        seconds = COOL_SECONDS_DEFAULT if retry_after_s is None else retry_after_s
        self._rest(key, min(max(seconds, 0.1), COOL_SECONDS_MAX), refused=False)

    def refuse(self, key: ProviderKey) -> None:
        """The provider does not accept this key."""
        if self._rest(key, REFUSED_SECONDS, refused=True):
            log.error(
                "%s refuses the key %s (or its account has no credit): calls go on without it; it"
                " is tried again in %d s",
                key.provider,
                key.name,
                REFUSED_SECONDS,
            )

    def accepted(self, key: ProviderKey) -> None:
        """A call with this key succeeded."""
        if not self._rested:
            return
        slot = self._slot(key)
        rested = slot is not None and 0 < slot.resting_until_ns <= self._clock.monotonic_ns()
        if slot is not None and rested:
            slot.resting_until_ns = 0
            slot.refused = False

    def providers(self) -> list[str]:
        """Those that have a pool."""
        return list(self._pools)

    def states(self, provider: str) -> list[KeyState]:
        """How the provider's keys stand."""
        now = self._clock.monotonic_ns()
        found = []
        for slot in self._pools.get(provider, ()):
            left_s = max(0.0, (slot.resting_until_ns - now) / 1e9)
            state = "ready" if not left_s else "refused" if slot.refused else "resting"
            found.append(
                KeyState(
                    name=slot.key.name,
                    weight=slot.key.weight,
                    state=state,
                    seconds_left=round(left_s, 1),
                )
            )
        return found

    def _rest(self, key: ProviderKey, seconds: float, *, refused: bool) -> bool:
        slot = self._slot(key)
        if slot is None:
            return False
        slot.refused = refused
        self._rested = True
        until = self._clock.monotonic_ns() + int(seconds * 1e9)
        slot.resting_until_ns = max(slot.resting_until_ns, until)
        return True

    def _slot(self, key: ProviderKey) -> _Slot | None:
        if key.owner_id is not None:
            return None
        pool = self._pools.get(key.provider, ())
        return next((slot for slot in pool if slot.key.secret == key.secret), None)
