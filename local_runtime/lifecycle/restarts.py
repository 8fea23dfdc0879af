"""When to start a crashed engine again. Pure: it is told the time."""

QUARANTINE_CRASHES = 3
QUARANTINE_WINDOW_S = 300.0
_FIRST_DELAY_S = 2.0
_DELAY_S_MAX = 60.0


class Restarts:
    """The crashes of one model. The first restart is immediate, then 2 s, doubling up to 60 s.

    Three crashes within five minutes are the last: the model is quarantined. Five minutes without
    a crash start the count anew.
    """

    def __init__(self) -> None:
        self._crashes_s: list[float] = []
        self._in_a_row = 0
        self.total = 0

    def crashed(self, now_s: float) -> float | None:
        """Seconds to wait before the next start; None: do not start it again."""
        if self._crashes_s and now_s - self._crashes_s[-1] > QUARANTINE_WINDOW_S:
            self._in_a_row = 0
        self._in_a_row += 1
        self.total += 1
        self._crashes_s = [
            at_s for at_s in self._crashes_s if now_s - at_s <= QUARANTINE_WINDOW_S
        ] + [now_s]
        if len(self._crashes_s) >= QUARANTINE_CRASHES:
            return None
        if self._in_a_row == 1:
            return 0.0
        return min(_DELAY_S_MAX, _FIRST_DELAY_S * float(2 ** (self._in_a_row - 2)))

    def forgive(self) -> None:
        """A person asked for another try."""
        self._crashes_s.clear()
        self._in_a_row = 0
