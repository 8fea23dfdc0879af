"""Months are UTC months, whatever zone the machine is set to."""

import ast
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import SystemClock, period_of
from tests.tidy.tree import ROOT, parsed, python_files, short

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ("2026-01-31", "2026-02-01"),
        ("2026-02-28", "2026-03-01"),
        ("2027-12-31", "2028-01-01"),
        ("2028-02-29", "2028-03-01"),
        ("2000-02-29", "2000-03-01"),
        ("2100-02-28", "2100-03-01"),  # no leap year
        ("2026-04-30", "2026-05-01"),
        ("2037-12-31", "2038-01-01"),
        ("2038-01-31", "2038-02-01"),  # 32 bits of seconds have run out on the 19th
    ],
)
def test_a_month_ends_with_its_last_millisecond(last: str, first: str) -> None:
    boundary_ms = ms(first)
    assert period_of(boundary_ms - 1) == last[:7]
    assert period_of(boundary_ms) == first[:7]


def test_a_leap_day_is_in_february() -> None:
    assert {period_of(ms(f"2028-02-29T{hour:02}:30:00")) for hour in range(24)} == {"2028-02"}


def test_the_32_bit_second_rolls_over_within_a_month() -> None:
    moment_ms = 2**31 * 1000
    assert {period_of(moment_ms + step) for step in (-1000, -1, 0, 1, 1000)} == {"2038-01"}


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))
def test_it_is_the_calendars_month(moment: datetime) -> None:
    at_ms = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    assert period_of(at_ms) == f"{moment.year:04}-{moment.month:02}"


# Zones whose clocks change, both ways, and the moments (UTC) at which they do; where a month's
# first hour does not exist, and where local time is another month for the most hours.
_ASK = """
import sys, time
from app.clock import SystemClock, period_of
from app.clock import month_ms
time.tzset()
print(time.tzname[0])
for moment in map(int, sys.argv[1:]):
    print(moment, period_of(moment), month_ms(period_of(moment)))
print(abs(SystemClock().now_ms() - int(time.time() * 1000)) < 10_000)
"""
ZONES = {
    "America/New_York": ("2026-03-08T07:00", "2026-11-01T06:00"),
    "Europe/Berlin": ("2026-03-29T01:00", "2026-10-25T01:00"),
    "Asia/Beirut": ("2026-03-28T22:00", "2026-10-24T21:00"),
    "Australia/Lord_Howe": ("2026-04-04T15:00", "2026-10-03T15:30"),
    "America/Santiago": ("2026-04-05T03:00", "2026-09-06T04:00"),
    "Pacific/Kiritimati": ("2026-01-31T10:00", "2026-12-31T10:00"),
}


def moments_of(changes: tuple[str, ...]) -> list[str]:
    """Around each change and each end of a month of that year, as milliseconds."""
    ends = [f"2026-{month:02}-01T00:00" for month in range(1, 13)]
    steps = (-3_600_000, -1, 0, 1, 3_600_000)
    return [str(ms(text) + step) for text in (*changes, *ends) for step in steps]


@pytest.mark.parametrize("zone", sorted(ZONES))
def test_daylight_saving_and_zones_change_nothing(zone: str) -> None:
    moments = moments_of(ZONES[zone])
    told = {}
    for name in (zone, "UTC"):
        ran = subprocess.run(
            [sys.executable, "-c", _ASK, *moments],
            env={**os.environ, "TZ": name},
            capture_output=True,
            text=True,
            check=True,
        )
        told[name] = ran.stdout.splitlines()
    assert told["UTC"][1:] == told[zone][1:]
    assert told["UTC"][-1] == "True"
    assert told["UTC"][0] == "UTC"
    if os.path.exists(f"/usr/share/zoneinfo/{zone}"):
        assert told[zone][0] != "UTC", "the child was in that zone"


def test_the_machines_clock_is_never_in_doubt() -> None:
    assert SystemClock().suspended is False


# What asks for the machine's zone. With a zone among its arguments the second kind does not.
ALWAYS_LOCAL = {"localtime", "mktime", "ctime", "asctime", "today", "utcnow", "utcfromtimestamp"}
LOCAL_WITHOUT_A_ZONE = {"now": 1, "fromtimestamp": 2, "astimezone": 1, "tzset": 1}


def local_time(tree: ast.AST) -> list[int]:
    """Lines with a call that answers in local time."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name = node.func.attr
        given = len(node.args) + len(node.keywords)
        if name in ALWAYS_LOCAL or given < LOCAL_WITHOUT_A_ZONE.get(name, 0):
            found.append(node.lineno)
    return found


def test_nothing_in_the_appliance_asks_for_local_time() -> None:
    code = [
        f"{short(path)}:{line}" for path in python_files("app") for line in local_time(parsed(path))
    ]
    sql = [
        short(path)
        for path in (ROOT / "app").rglob("*")
        if path.suffix in {".py", ".sql"} and "'localtime'" in path.read_text(encoding="utf-8")
    ]
    assert code + sql == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("datetime.now()", [1]),
        ("datetime.now(UTC)", []),
        ("date.today()", [1]),
        ("datetime.fromtimestamp(s)", [1]),
        ("datetime.fromtimestamp(s, tz=UTC)", []),
        ("moment.astimezone()", [1]),
        ("time.localtime(s)", [1]),
    ],
)
def test_the_rule_sees(code: str, lines: list[int]) -> None:
    assert local_time(ast.parse(code)) == lines
