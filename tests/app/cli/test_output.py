"""What commands print: exact money, plain when piped, no markup or control codes from names."""

import json
import os
import pty
import subprocess
import sys
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli import output
from app.cli.output import Column, moment, show_error, show_json, show_table, usd


@given(st.integers(-(10**18), 10**18))
def test_dollars_are_exact_with_two_to_nine_places(nano_usd: int) -> None:
    text = usd(nano_usd)
    sign = "-" if text.startswith("-") else ""
    places = text.partition(".")[2]
    assert Decimal(sign + text.removeprefix("-").removeprefix("$")) == Decimal(nano_usd).scaleb(-9)
    assert 2 <= len(places) <= 9
    assert len(places) == 2 or not places.endswith("0")


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (-1, "-$0.000000001"),
        (100_000_000, "$0.10"),
        (999_999_999, "$0.999999999"),
        (10**9, "$1.00"),
        (1_234_500_000, "$1.2345"),
        (9_007_199_254_740_993, "$9007199.254740993"),  # not a float's integer any more
    ],
)
def test_dollars(nano_usd: int, text: str) -> None:
    assert usd(nano_usd) == text


def test_moments_are_utc() -> None:
    assert moment(0) == "1970-01-01T00:00:00Z"
    assert moment(1_790_000_000_999) == "2026-09-21T14:13:20Z"
    assert moment(None) == "-"


def test_a_piped_table_is_tab_separated_with_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column("Name"), Column("Last used"), Column("Calls", number=True)]
    show_table(columns, [["[bold]a[/]", "-", "7"], ["b", "now", "10"]], empty="none")
    assert capsys.readouterr().out == "NAME\tLAST_USED\tCALLS\n[bold]a[/]\t-\t7\nb\tnow\t10\n"
    show_table(columns, [], empty="none")
    assert capsys.readouterr().out == "NAME\tLAST_USED\tCALLS\n"


def test_a_terminal_table_shows_cells_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    show_table([Column("Name")], [["[red]alice[/red]"]], empty="nobody")
    assert "[red]alice[/red]" in capsys.readouterr().out
    show_table([Column("Name")], [], empty="nobody")
    assert capsys.readouterr().out == "nobody\n"


def test_json_keeps_big_integers(capsys: pytest.CaptureFixture[str]) -> None:
    class Line(msgspec.Struct):
        cost_nano_usd: int

    show_json([Line(9_007_199_254_740_993)])
    assert json.loads(capsys.readouterr().out) == [{"cost_nano_usd": 9_007_199_254_740_993}]


def test_an_error_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_error("two\nlines [bold]and markup[/bold] " + "x" * 300)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Error: two lines [bold]and markup[/bold] " + "x" * 300 + "\n"


def test_a_secret_on_a_terminal_has_advice_around_and_its_own_line() -> None:
    script = (
        "from app.cli.output import show_secret;"
        "show_secret('Key of alice', 'tp_' + 'k' * 47, 'Store it [now].')"
    )
    parent, child = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-c", script],
        stdout=child,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "40", "TERM": "dumb"},
        check=True,
    )
    os.close(child)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    assert process.returncode == 0
    lines = [line.strip() for line in shown.splitlines()]
    assert "tp_" + "k" * 47 in lines  # whole and alone, also where the terminal is narrow
    assert "Store it [now]." in shown
    assert "Key of alice" in shown


def test_a_secret_in_a_pipe_is_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_secret("Key of alice", "tp_secret", "Store it.")
    assert capsys.readouterr().out == "tp_secret\n"
