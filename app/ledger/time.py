"""The ledger's time (I8): it never goes back, and a clock that jumps begins and ends no month.

The machine's time of day is watched by its monotonic clock. A step back of more than
``BACK_MS_MAX``, or forward of more than ``FORWARD_MS_MAX``, puts the time in doubt: ledger time
goes on from where it was, at the pace of the monotonic clock, and grants, expiries, give-ups and
closings wait. Calls do not: they belong to the month that ledger time says. The doubt ends when
the clock is back where it was expected, when it has agreed with itself for two ticks, or when the
operator confirms it.

Then ledger time follows the clock again. Where that would be a step back it stays ahead instead,
and works the lead off, a sixteenth of the time that passes. Between two runs of the server the
table ``ledger_clock`` says how far ledger time had come: a clock that is behind that at the start
is in doubt at once; one that is ahead of it is normal, the machine was off. Without a mark, at the
very first start, a clock that shows a time before this program was written is in doubt as well: a
machine without a battery for its clock starts in 1970.

A machine that slept is no jump: the monotonic clock stands still meanwhile, but the system says for
how long, and where the clock is ahead by that much the time is taken at once.

All of it is UTC in milliseconds; no time zone is ever asked for.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock

import msgspec

from app.clock import EARLIEST_MS, Clock
from app.storage.database import Database, Transaction

BACK_MS_MAX = 5_000
FORWARD_MS_MAX = 3_600_000
TICKS_TO_CONFIRM = 2
TICK_MS_MIN = 30_000
"""Ticks that are closer together than this count as one."""
LEAD_WORKED_OFF = 16
AGES_MS = 7_200_000
"""After a jump ahead, ages go by the time before it for so long: no hold lives longer."""
_MEASURED_WITHIN_MS = 100

log = logging.getLogger("turnpike.clock")


class ClockState(msgspec.Struct, frozen=True, kw_only=True):
    """How the ledger's time stands. All milliseconds; moments are since 1970-01-01 UTC.

    ``step_ms`` is how far the clock is from where it is expected, while that is in doubt, and
    ``suspended_since_ms`` the ledger time at which the doubt began. ``lead_ms`` is how far ledger
    time is ahead of the clock otherwise.
    """

    ledger_ms: int
    clock_ms: int
    suspended: bool
    suspended_since_ms: int | None
    step_ms: int
    lead_ms: int
    advice: str


class _Doubt:
    """A suspicious step: what the clock showed, and how often it has said the same since."""

    __slots__ = ("agreed", "looked_ms", "offset_ms", "since_ms")

    def __init__(self, offset_ms: int, looked_ms: int, since_ms: int) -> None:
        self.offset_ms = offset_ms  # clock minus monotonic, as the last counted look saw it
        self.looked_ms = looked_ms  # when that was, monotonic
        self.since_ms = since_ms
        self.agreed = 0


class LedgerClock:
    """Implements ``Clock`` over the machine's. Any thread may ask; ``tick`` comes each minute."""

    def __init__(self, machine: Clock, slept_ns: Callable[[], int] = lambda: 0) -> None:
        """``slept_ns`` is how long the machine slept, from an arbitrary start."""
        self._clock_ms = machine.now_ms
        self._slept_ns = slept_ns
        self._slept_ms = slept_ns() // 1_000_000  # as the offset below was taken
        self._monotonic_ns = machine.monotonic_ns
        self._lock = Lock()
        now_ms, elapsed_ms = self._measure()
        self._offset_ms = now_ms - elapsed_ms  # clock minus monotonic, as last believed
        self._last_ms = now_ms
        self._lead_ms = 0
        self._ticked_ms = elapsed_ms
        self._doubt: _Doubt | None = None
        self._ages_behind_ms = 0
        self._ages_until_ms = 0
        self.ages: Clock = _Ages(self)
        """The same time for ages: for ``AGES_MS`` after a jump ahead it does without the jump."""

    def now_ms(self) -> int:
        """Ledger time. Never less than it said before, on any thread."""
        now_ms = self._clock_ms()
        expected_ms = self._monotonic_ns() // 1_000_000 + self._offset_ms
        with self._lock:
            if (
                self._doubt is None
                and expected_ms - BACK_MS_MAX <= now_ms <= expected_ms + FORWARD_MS_MAX
            ):
                now_ms += self._lead_ms
                if now_ms <= self._last_ms:
                    return self._last_ms
                self._last_ms = now_ms
                return now_ms
        return self._look(tick=False)

    def monotonic_ns(self) -> int:
        """Nanoseconds from an arbitrary start, for ages."""
        return self._monotonic_ns()

    @property
    def suspended(self) -> bool:
        """Whether the time of day is in doubt."""
        return self._doubt is not None

    def start_from(self, high_ms: int, earliest_ms: int = 0) -> None:
        """Go on where the last run of the server came to; once, before anything is booked. No time
        before ``earliest_ms`` is believed without a doubt.
        """
        said = ""
        floor_ms = max(high_ms, earliest_ms)
        with self._lock:
            now_ms, elapsed_ms = self._measure()
            self._last_ms = max(floor_ms, now_ms)
            if now_ms < floor_ms - BACK_MS_MAX:
                self._offset_ms = floor_ms - elapsed_ms
                self._doubt = _Doubt(now_ms - elapsed_ms, elapsed_ms, floor_ms)
                known = high_ms >= earliest_ms
                than = "when the server last ran" if known else "this program was written"
                said = _warning(floor_ms, now_ms, f"than {than}")
        if said:
            log.warning(said)
        elif high_ms and now_ms - high_ms > FORWARD_MS_MAX:
            log.info("the ledger was last at %s, %s ago", _moment(high_ms), _span(now_ms - high_ms))

    def tick(self) -> None:
        """Look at the clocks: each minute. A tick that is missed, late or doubled does no harm."""
        self._look(tick=True)

    def confirm(self) -> ClockState:
        """The operator says that the machine's clock is right now."""
        self._look(tick=False)
        with self._lock:
            doubted = self._doubt is not None
            if doubted:
                self._believe(*self._measure())
        if doubted:
            log.warning("the clock was confirmed: %s", self._told())
        return self.state()

    def state(self) -> ClockState:
        """How the time stands, for the operator."""
        ledger_ms = self._look(tick=False)
        with self._lock:
            now_ms, elapsed_ms = self._measure()
            doubt = self._doubt
            step_ms = now_ms - elapsed_ms - self._offset_ms if doubt else 0
            return ClockState(
                ledger_ms=ledger_ms,
                clock_ms=now_ms,
                suspended=doubt is not None,
                suspended_since_ms=None if doubt is None else doubt.since_ms,
                step_ms=step_ms,
                lead_ms=0 if doubt else self._lead_ms,
                advice="" if doubt is None else _ADVICE,
            )

    def ages_ms(self) -> int:
        """See ``ages``."""
        now_ms = self.now_ms()
        with self._lock:
            if self._monotonic_ns() // 1_000_000 < self._ages_until_ms:
                return now_ms - self._ages_behind_ms
            return now_ms

    # The lock is held where these change something.

    def _look(self, *, tick: bool) -> int:
        """Compare the clocks carefully, and decide; ledger time."""
        said, level = "", logging.WARNING
        with self._lock:
            now_ms, elapsed_ms = self._measure()
            expected_ms = elapsed_ms + self._offset_ms
            usual = expected_ms - BACK_MS_MAX <= now_ms <= expected_ms + FORWARD_MS_MAX
            slept_ms = self._slept_ns() // 1_000_000 - self._slept_ms
            if not usual and slept_ms > BACK_MS_MAX:
                usual = -BACK_MS_MAX <= now_ms - expected_ms - slept_ms <= FORWARD_MS_MAX
                if usual and self._doubt is None:
                    self._believe(now_ms, elapsed_ms)
                    said, level = f"the machine slept for {_span(slept_ms)}", logging.INFO
            if self._doubt is None and not usual:
                # From here on by the monotonic clock, and from what was said last, not before.
                expected_ms = max(expected_ms, self._last_ms - self._lead_ms)
                self._offset_ms = expected_ms - elapsed_ms
                self._doubt = _Doubt(now_ms - elapsed_ms, elapsed_ms, expected_ms + self._lead_ms)
                said = _warning(expected_ms, now_ms, "at a step, while the server ran")
            elif tick:
                said = self._tick(now_ms, elapsed_ms, usual)
            believed_ms = now_ms if self._doubt is None else elapsed_ms + self._offset_ms
            self._last_ms = max(self._last_ms, believed_ms + self._lead_ms)
            last_ms = self._last_ms
        if said:
            log.log(level, said)
        return last_ms

    def _tick(self, now_ms: int, elapsed_ms: int, usual: bool) -> str:
        """Follow the clock's drift, or count its word; what there is to log."""
        passed_ms, self._ticked_ms = elapsed_ms - self._ticked_ms, elapsed_ms
        doubt = self._doubt
        if doubt is None:
            self._offset_ms = now_ms - elapsed_ms
            self._slept_ms = self._slept_ns() // 1_000_000
            self._lead_ms -= min(self._lead_ms, passed_ms // LEAD_WORKED_OFF)
            return ""
        if usual:
            self._believe(now_ms, elapsed_ms)
            return "the clock is back where it was expected: everything goes on"
        if elapsed_ms - doubt.looked_ms < TICK_MS_MIN:
            return ""
        doubt.looked_ms = elapsed_ms
        if abs(now_ms - elapsed_ms - doubt.offset_ms) <= BACK_MS_MAX:
            doubt.agreed += 1
        else:
            doubt.offset_ms, doubt.agreed = now_ms - elapsed_ms, 0
        if doubt.agreed < TICKS_TO_CONFIRM:
            return ""
        self._believe(now_ms, elapsed_ms)
        return f"the clock has kept its new time, which is taken: {self._told()}"

    def _believe(self, now_ms: int, elapsed_ms: int) -> None:
        """Follow the clock from here on, without a step back."""
        before_ms = max(self._last_ms, elapsed_ms + self._offset_ms + self._lead_ms)
        self._doubt = None
        self._offset_ms = now_ms - elapsed_ms
        self._slept_ms = self._slept_ns() // 1_000_000
        self._lead_ms = max(before_ms - now_ms, 0)
        self._last_ms = max(before_ms, now_ms)
        if elapsed_ms >= self._ages_until_ms:
            self._ages_behind_ms = 0
        if now_ms > before_ms:
            self._ages_behind_ms += now_ms - before_ms
            self._ages_until_ms = elapsed_ms + AGES_MS

    def _told(self) -> str:
        told = f"ledger time is {_moment(self._last_ms)}"
        if self._lead_ms:
            told += (
                f", {_span(self._lead_ms)} ahead of the clock, since it never goes back; the lead"
                " is worked off slowly"
            )
        return told

    def _measure(self) -> tuple[int, int]:
        """Clock and monotonic milliseconds of one moment, also where the thread was held up."""
        for _ in range(8):
            before_ns = self._monotonic_ns()
            now_ms = self._clock_ms()
            if self._monotonic_ns() - before_ns <= _MEASURED_WITHIN_MS * 1_000_000:
                break
        return now_ms, before_ns // 1_000_000


class _Ages:
    """Implements ``Clock``: see ``LedgerClock.ages``."""

    def __init__(self, clock: LedgerClock) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        return self._clock.ages_ms()

    def monotonic_ns(self) -> int:
        return self._clock.monotonic_ns()

    @property
    def suspended(self) -> bool:
        return self._clock.suspended


async def open_clock(clock: LedgerClock, database: Database) -> None:
    """Tell the clock how far the ledger had come; the database has just been opened."""
    rows = await database.read(
        "SELECT max(high_ms, coalesce((SELECT at_ms FROM entries ORDER BY seq DESC LIMIT 1), 0))"
        " FROM ledger_clock"
    )
    clock.start_from(rows[0][0], EARLIEST_MS)


async def keep_mark(clock: Clock, database: Database) -> None:
    """Write down how far the ledger has come, for the next start."""
    high_ms = clock.now_ms()

    def unit(transaction: Transaction) -> None:
        transaction.execute(
            "UPDATE ledger_clock SET high_ms = ? WHERE high_ms < ?", (high_ms, high_ms)
        )

    await database.write(unit, is_note=True)


_ADVICE = (
    "Calls go on; credit of new months, expiries and closings wait until the clock has kept its"
    " time for two minutes. If the time is wrong, set the machine's clock; if it is right,"
    " `turnpike clock confirm` ends the wait."
)


def _warning(expected_ms: int, now_ms: int, when: str) -> str:
    way = "earlier" if now_ms < expected_ms else "later"
    return (
        f"the machine's clock shows {_moment(now_ms)}, {_span(abs(now_ms - expected_ms))} {way}"
        f" {when}. {_ADVICE}"
    )


def _moment(at_ms: int) -> str:
    """UTC to the second, as ISO 8601."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_ms // 1000)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(ms: int) -> str:
    """A duration by its two largest units."""
    minutes, seconds = divmod(ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    said = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(said) or "0 s"
