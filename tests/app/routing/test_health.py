"""Circuits, on a clock that is moved by hand."""

from app.routing.health import FAILURES_TO_OPEN, OPEN_SECONDS_MAX, OPEN_SECONDS_MIN, Health

KEY = ("mock", "acme/tiny")


class HandClock:
    """Stands still until told."""

    suspended = False

    def __init__(self) -> None:
        self.ns = 10**12

    def now_ms(self) -> int:
        return self.ns // 10**6

    def monotonic_ns(self) -> int:
        return self.ns

    def pass_seconds(self, seconds: float) -> None:
        self.ns += int(seconds * 10**9)


def test_it_opens_after_failures_in_a_row_and_probes_with_one_call() -> None:
    clock = HandClock()
    health = Health(clock)
    for _ in range(FAILURES_TO_OPEN - 1):
        health.failed(KEY)
    assert health.live(KEY)
    health.failed(KEY)
    assert not health.live(KEY)
    assert not health.closed(KEY)
    clock.pass_seconds(OPEN_SECONDS_MIN + 0.1)
    assert health.live(KEY)  # the probe
    assert not health.live(KEY)  # and nobody beside it
    health.succeeded(KEY)
    assert health.live(KEY)
    assert health.closed(KEY)


def test_a_success_starts_the_count_again() -> None:
    health = Health(HandClock())
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            health.failed(KEY)
        health.succeeded(KEY)
    assert health.live(KEY)


def test_the_wait_doubles_up_to_a_minute() -> None:
    clock = HandClock()
    health = Health(clock)
    for _ in range(FAILURES_TO_OPEN + 10):
        health.failed(KEY)
    clock.pass_seconds(OPEN_SECONDS_MAX - 1)
    assert not health.live(KEY)
    clock.pass_seconds(2)
    assert health.live(KEY)


def test_a_retry_after_opens_at_once() -> None:
    clock = HandClock()
    health = Health(clock)
    health.failed(KEY, retry_after_s=30)
    clock.pass_seconds(29)
    assert not health.live(KEY)
    clock.pass_seconds(2)
    assert health.live(KEY)
    health.failed(("other", "acme/tiny"), retry_after_s=10**9)
    clock.pass_seconds(OPEN_SECONDS_MAX + 1)
    assert health.live(("other", "acme/tiny"))
