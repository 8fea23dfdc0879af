"""A machine whose time of day and monotonic clock are moved by hand, apart from each other."""

from tests.app.ledger.books import START_MS

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


class TwoClocks:
    """Implements ``Clock``: what the operating system says."""

    suspended = False

    def __init__(self, wall_ms: int = START_MS) -> None:
        self.wall_ms = wall_ms
        self.passed_ms = 5_000_000
        self.slept_ms = 7_000

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_ns(self) -> int:
        return self.passed_ms * 1_000_000

    def slept_ns(self) -> int:
        return self.slept_ms * 1_000_000

    def passes(self, ms: int) -> None:
        """Time passes."""
        self.wall_ms += ms
        self.passed_ms += ms

    def sleeps(self, ms: int) -> None:
        """The lid is closed: the monotonic clock stands still, and the system knows it."""
        self.wall_ms += ms
        self.slept_ms += ms

    def steps(self, ms: int) -> None:
        """Somebody sets the clock."""
        self.wall_ms += ms
