"""The machine's clock, against what the ledger wrote down and what the system says of it."""

import ctypes
import sys
import time
from datetime import UTC, datetime

from app.clock import EARLIEST_MS
from app.doctor.finding import Commands, Finding, Teller
from app.ledger.time import BACK_MS_MAX, ClockState

YEAR_MS = 366 * 86_400_000
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
_TIMEX_BYTES = 512  # more than struct timex has on any machine
_tell = Teller("clock")


def check_clock(
    now_ms: int, last_ms: int | None, state: ClockState | None, commands: Commands
) -> list[Finding]:
    """``last_ms``: how far the ledger had come; ``state``: what a running server says."""
    found = [*_against_the_ledger(now_ms, last_ms), *_of_server(state, commands)]
    if not found:
        found = [_tell.ok("clock.ok", f"it is {moment(now_ms)}, which the ledger agrees with")]
    return [*found, *_of_system(is_synchronised()), time_zone()]


def _against_the_ledger(now_ms: int, last_ms: int | None) -> list[Finding]:
    set_it = (
        'Set the machine\'s clock: date -u -s "YYYY-MM-DD hh:mm:ss", or timedatectl set-ntp true'
    )
    if now_ms < EARLIEST_MS:
        return [
            _tell.problem(
                "clock.wrong",
                f"the clock shows {moment(now_ms)}, before this program was written",
                set_it,
            )
        ]
    if last_ms is None:
        return []
    if now_ms < last_ms - BACK_MS_MAX:
        return [
            _tell.problem(
                "clock.behind",
                f"the clock shows {moment(now_ms)}, and the ledger was at {moment(last_ms)} before:"
                " no month begins and nothing expires until it has caught up",
                set_it,
            )
        ]
    if now_ms > last_ms + YEAR_MS:
        return [
            _tell.warning(
                "clock.ahead",
                f"the clock shows {moment(now_ms)}, and the ledger was last at {moment(last_ms)},"
                " more than a year before",
                f"If the machine was not off for so long: {set_it}",
            )
        ]
    return []


def _of_server(state: ClockState | None, commands: Commands) -> list[Finding]:
    if state is None or not state.suspended:
        return []
    return [
        _tell.problem(
            "clock.jumped",
            f"the clock jumped by {state.step_ms / 1000:+.0f} s while the server ran: credit of new"
            " months, expiries and closings wait",
            "Set the machine's clock; or, if it is right now: "
            + commands.turnpike("clock", "confirm"),
        )
    ]


def _of_system(synchronised: bool | None) -> list[Finding]:
    if synchronised is None:
        return []
    if synchronised:
        return [_tell.ok("clock.synchronised", "the system keeps the clock by a time server")]
    return [
        _tell.warning(
            "clock.unsynchronised",
            "the system says that nothing keeps the clock right",
            "timedatectl set-ntp true; without a network, set the clock by hand now and then",
        )
    ]


def is_synchronised() -> bool | None:
    """What the kernel says; None where it is not Linux, or does not tell."""
    if sys.platform != "linux":
        return None
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state != _UNSYNCHRONISED)


def time_zone() -> Finding:
    """So that nobody changes it for the ledger's sake."""
    names = "/".join(dict.fromkeys(time.tzname))
    text = f"the machine's time zone ({names}) changes nothing: months and days are UTC everywhere"
    return _tell.ok("clock.time_zone", text)


def moment(at_ms: int) -> str:
    """UTC to the second, as ISO 8601."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
