"""How each offer does: one circuit, and what was measured of its speed.

A circuit opens after five failures in a row, or when over half of at least 20 calls of the last
10 s failed; for 5 s, doubling to 60 s. Then a single call may try (half-open): its success closes
the circuit. An open circuit moves its offer to the end of the plan rather than out of it, so that a
model whose every provider fails still gets an attempt and an honest error.
"""

from collections import deque
from typing import NamedTuple

from app.clock import Clock

FAILURES_TO_OPEN = 5
WINDOW_SECONDS = 10
WINDOW_CALLS_MIN = 20
OPEN_SECONDS_MIN = 5.0
OPEN_SECONDS_MAX = 60.0
SAMPLES_KEPT = 128
_SECOND_NS = 10**9
_TRIAL_SECONDS_MAX = 60  # a half-open trial that never reports is taken for lost
_WEIGHT_MAX = 0.3
_TOKENS_OF_FULL_WEIGHT = 300

OfferKey = tuple[str, str]  # (provider id, model)


class Figures(NamedTuple):
    """What was measured lately, as moving means; None where nothing was yet."""

    first_token_ms: float | None
    tokens_per_second: float | None


_NOTHING = Figures(None, None)


class _Record:
    """What is known of one offer."""

    __slots__ = (
        "failures",
        "first_token_ms",
        "first_tokens_ms",
        "open_seconds",
        "open_until_ns",
        "recent",
        "speeds",
        "tokens_per_second",
        "trial_until_ns",
    )

    def __init__(self) -> None:
        self.failures = 0
        self.open_seconds = OPEN_SECONDS_MIN
        self.open_until_ns = 0  # 0: closed
        self.trial_until_ns = 0
        self.recent: deque[list[int]] = deque()  # [second, calls, failures]
        self.first_token_ms: float | None = None
        self.tokens_per_second: float | None = None
        self.first_tokens_ms: deque[float] = deque(maxlen=SAMPLES_KEPT)
        self.speeds: deque[float] = deque(maxlen=SAMPLES_KEPT)

    def count(self, now_ns: int, failed: int) -> tuple[int, int]:
        """Count one call; calls and failures of the window."""
        second, recent = now_ns // _SECOND_NS, self.recent
        if recent and recent[-1][0] == second:
            recent[-1][1] += 1
            recent[-1][2] += failed
        else:
            recent.append([second, 1, failed])
            while recent[0][0] <= second - WINDOW_SECONDS:
                recent.popleft()
        if not failed:
            return 0, 0
        return sum(each[1] for each in recent), sum(each[2] for each in recent)


class Health:
    """All circuits and measures. One event loop writes them; nothing here waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[OfferKey, _Record] = {}

    # What plans read; asking changes nothing.

    def closed(self, key: OfferKey) -> bool:
        """Whether the offer's circuit is closed, or ready for a trial."""
        record = self._records.get(key)
        if record is None or not record.open_until_ns:
            return True
        now = self._clock.monotonic_ns()
        return record.open_until_ns <= now and record.trial_until_ns <= now

    def healthy(self, key: OfferKey) -> bool:
        """Whether the offer's circuit is closed; a trial has yet to show that of another."""
        record = self._records.get(key)
        return record is None or not record.open_until_ns

    def opens_in_s(self, key: OfferKey) -> float:
        """Seconds until an open circuit lets a trial through."""
        record = self._records.get(key)
        if record is None or not record.open_until_ns:
            return 0.0
        return max(0.0, (record.open_until_ns - self._clock.monotonic_ns()) / _SECOND_NS)

    def figures(self, key: OfferKey) -> Figures:
        """The moving means."""
        record = self._records.get(key)
        if record is None:
            return _NOTHING
        return Figures(record.first_token_ms, record.tokens_per_second)

    def speed(self, key: OfferKey) -> float:
        """Output tokens per second, as a moving mean; 0 where nothing was measured."""
        record = self._records.get(key)
        return 0.0 if record is None else record.tokens_per_second or 0.0

    def speed_at(self, key: OfferKey, percentile: int) -> float | None:
        """The tokens per second that so many percent of the last calls reached at least."""
        record = self._records.get(key)
        return None if record is None else _at(record.speeds, 100 - percentile)

    def first_token_ms_at(self, key: OfferKey, percentile: int) -> float | None:
        """The time within which so many percent of the last calls had their first token."""
        record = self._records.get(key)
        return None if record is None else _at(record.first_tokens_ms, percentile)

    def open_circuits(self) -> list[OfferKey]:
        """The offers whose circuit is open, or being tried again."""
        return [key for key, record in self._records.items() if record.open_until_ns]

    # What calls and probes write.

    def admit(self, key: OfferKey) -> bool:
        """Whether a call may try the offer now. A half-open circuit lets one call through."""
        record = self._records.get(key)
        if record is None or not record.open_until_ns:
            return True
        now = self._clock.monotonic_ns()
        if now < record.open_until_ns or now < record.trial_until_ns:
            return False
        record.trial_until_ns = now + _TRIAL_SECONDS_MAX * _SECOND_NS
        return True

    def succeeded(self, key: OfferKey) -> None:
        """A call delivered its answer."""
        record = self._of(key)
        record.count(self._clock.monotonic_ns(), 0)
        record.failures = 0
        if record.open_until_ns:
            record.open_until_ns = record.trial_until_ns = 0
            record.open_seconds = OPEN_SECONDS_MIN
            record.recent.clear()

    def failed(self, key: OfferKey, retry_after_s: float | None = None) -> None:
        """A call failed for a reason that says something about the offer. ``retry_after_s`` is the
        provider's own word for how long to stay away."""
        record, now = self._of(key), self._clock.monotonic_ns()
        calls, failures = record.count(now, 1)
        record.failures += 1
        over_half = calls >= WINDOW_CALLS_MIN and 2 * failures > calls
        was_open = record.open_until_ns > 0
        if not (was_open or over_half or retry_after_s or record.failures >= FAILURES_TO_OPEN):
            return
        seconds = record.open_seconds
        if was_open and now < record.open_until_ns:
            return  # a last resort that failed as expected, or a call from before it opened
        if retry_after_s:
            seconds = max(seconds, min(retry_after_s, OPEN_SECONDS_MAX))
        record.open_until_ns = now + int(seconds * _SECOND_NS)
        record.trial_until_ns = 0
        record.open_seconds = min(2 * seconds, OPEN_SECONDS_MAX)

    def undecided(self, key: OfferKey) -> None:
        """A call ended in a way that says nothing about the offer: the next may be the trial."""
        record = self._records.get(key)
        if record is not None:
            record.trial_until_ns = 0

    def measured(
        self,
        key: OfferKey,
        first_token_ms: float | None,
        tokens_per_second: float | None,
        tokens: int = _TOKENS_OF_FULL_WEIGHT,
    ) -> None:
        """What one call took. A short answer, of few ``tokens``, moves the mean of the speed less.

        The speed is that of the whole attempt: output tokens over the time from its start to its
        end, so that streams and whole answers compare.
        """
        record = self._of(key)
        if first_token_ms is not None:
            record.first_tokens_ms.append(first_token_ms)
            record.first_token_ms = _moved(record.first_token_ms, first_token_ms, _WEIGHT_MAX)
        if tokens_per_second is not None:
            weight = _WEIGHT_MAX * min(1.0, (tokens + 1) / _TOKENS_OF_FULL_WEIGHT)
            record.speeds.append(tokens_per_second)
            record.tokens_per_second = _moved(record.tokens_per_second, tokens_per_second, weight)

    def _of(self, key: OfferKey) -> _Record:
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record()
        return record


def _moved(mean: float | None, value: float, weight: float) -> float:
    return value if mean is None else mean + weight * (value - mean)


def _at(samples: deque[float], percentile: int) -> float | None:
    """The nearest-rank percentile."""
    if not samples:
        return None
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, -(-percentile * len(ordered) // 100) - 1))]
