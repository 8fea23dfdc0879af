"""``turnpike clock``: what it prints of each state."""

import sqlite3
import time

import pytest

from app.cli import clock
from app.ledger.time import ClockState
from tests.app.cli.terminal import Inside, Turnpike


def test_show_and_confirm_on_a_clock_that_agrees(inside: Inside) -> None:
    for verb in ("show", "confirm"):
        ledger, machine, verdict = inside.out("clock", verb).splitlines()
        assert ledger.startswith("Ledger time     20")
        assert machine.startswith("Machine's clock 20")
        assert verdict == "They agree."
        assert inside.json("clock", verb)["suspended"] is False


def test_a_clock_behind_the_ledger_is_told_on_every_command(
    turnpike: Turnpike, inside: Inside
) -> None:
    """The warning is on stderr, beside whatever the command prints."""
    inside.out("users", "list")
    with sqlite3.connect(turnpike.data_dir / "turnpike.db") as connection:
        ahead_ms = time.time_ns() // 1_000_000 + 7_200_000
        connection.execute("UPDATE ledger_clock SET high_ms = ?", (ahead_ms,))
    connection.close()
    done = turnpike.run("clock", "show")
    assert done.returncode == 0
    assert "earlier than when the server last ran" in done.stderr
    assert "In doubt since 20" in done.stdout
    assert "turnpike clock confirm" in done.stdout
    done = inside.run("clock", "confirm")
    assert "it never goes back" in done.stdout


def test_what_a_lead_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    state = ClockState(
        ledger_ms=1_793_664_000_000,
        clock_ms=1_793_660_400_000,
        suspended=False,
        suspended_since_ms=None,
        step_ms=0,
        lead_ms=3_600_000,
        advice="",
    )
    clock._show(state, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "Ledger time     2026-11-03T00:00:00Z",
        "Machine's clock 2026-11-02T23:00:00Z",
        "Ledger time is ahead: it never goes back, and works the lead off slowly.",
    ]
