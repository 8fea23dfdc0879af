"""Whether an offer is worth a try now: one circuit per offer.

A circuit opens after five failures in a row, for 5 s, doubling to 60 s; then a single call probes
it (half-open). An open circuit moves its offer to the end of the plan rather than out of it, so
that a model whose every provider fails still gets an attempt and an honest error.
"""

from app.clock import Clock

FAILURES_TO_OPEN = 5
OPEN_SECONDS_MIN = 5.0
OPEN_SECONDS_MAX = 60.0

OfferKey = tuple[str, str]  # (provider id, model)


class _Circuit:
    """Counts of one offer. ``open_until_ns`` in the past and failures at the mark: half-open."""

    __slots__ = ("failures", "open_seconds", "open_until_ns")

    def __init__(self) -> None:
        self.failures = 0
        self.open_seconds = OPEN_SECONDS_MIN
        self.open_until_ns = 0


class Health:
    """All circuits. Only offers that failed lately have one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._circuits: dict[OfferKey, _Circuit] = {}

    def live(self, key: OfferKey) -> bool:
        """Whether the offer may be tried first. A half-open circuit lets one caller through."""
        circuit = self._circuits.get(key)
        if circuit is None or circuit.failures < FAILURES_TO_OPEN:
            return True
        now = self._clock.monotonic_ns()
        if now < circuit.open_until_ns:
            return False
        circuit.open_until_ns = now + int(circuit.open_seconds * 1e9)
        return True

    def closed(self, key: OfferKey) -> bool:
        """Whether the circuit is closed; asking changes nothing."""
        circuit = self._circuits.get(key)
        return circuit is None or circuit.failures < FAILURES_TO_OPEN

    def succeeded(self, key: OfferKey) -> None:
        """An attempt delivered its answer."""
        if self._circuits:
            self._circuits.pop(key, None)

    def failed(self, key: OfferKey, retry_after_s: float | None = None) -> None:
        """An attempt failed for a reason that says something about the offer."""
        circuit = self._circuits.setdefault(key, _Circuit())
        circuit.failures += 1
        if retry_after_s is not None:
            circuit.failures = max(circuit.failures, FAILURES_TO_OPEN)
            circuit.open_seconds = min(max(retry_after_s, 1.0), OPEN_SECONDS_MAX)
        if circuit.failures >= FAILURES_TO_OPEN:
            wait_ns = int(circuit.open_seconds * 1e9)
            circuit.open_until_ns = self._clock.monotonic_ns() + wait_ns
            circuit.open_seconds = min(circuit.open_seconds * 2, OPEN_SECONDS_MAX)
