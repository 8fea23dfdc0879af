"""Minutes of dedicated endpoints (I9), against a slow reference that knows nothing of runs."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.billing.minutes import (
    MINUTE_MS,
    Sighting,
    Sign,
    minutes,
    nano_usd_per_minute,
    runs,
    to_bill,
)
from app.ledger.entries import EndpointMinute
from tests.app.ledger.books import PERIOD, PRO, START_MS, HandStandings, opened

FIRST = START_MS // MINUTE_MS


def trace(*steps: tuple[int, str]) -> list[Sighting]:
    """Seconds after the start, and what was seen."""
    return [Sighting(START_MS + second * 1000, Sign(sign)) for second, sign in steps]


def billed(*steps: tuple[int, str]) -> list[int]:
    return [minute - FIRST for minute in minutes(trace(*steps))]


def test_a_run_bills_every_minute_that_it_touches() -> None:
    assert billed((30, "started"), (200, "stopped")) == [0, 1, 2, 3]


def test_an_end_on_the_minute_bills_no_further_one() -> None:
    assert billed((0, "started"), (120, "stopped")) == [0, 1]


def test_pauses_within_a_minute_bill_one() -> None:
    assert billed(
        (1, "started"),
        (5, "paused"),
        (9, "resumed"),
        (20, "paused"),
        (50, "resumed"),
        (59, "stopped"),
    ) == [0]


def test_a_pause_is_free() -> None:
    steps = (10, "started"), (70, "paused"), (70 + 600, "resumed"), (675, "stopped")
    assert billed(*steps) == [0, 1, 11]


@pytest.mark.parametrize("end", [[], [(900, "crashed")], [(900, "started")]])
def test_a_crash_bills_to_the_last_heartbeat_never_to_now(end: list[tuple[int, str]]) -> None:
    assert billed((0, "started"), (60, "heartbeat"), (100, "heartbeat"), *end) == [0, 1]


def test_a_start_that_gave_no_sign_of_life_bills_nothing() -> None:
    assert billed((0, "started"), (600, "crashed")) == []
    assert billed((0, "started")) == []


def test_what_does_not_fit_says_nothing() -> None:
    steps = (
        (0, "heartbeat"),
        (1, "stopped"),
        (61, "resumed"),
        (62, "resumed"),
        (65, "paused"),
        (190, "paused"),
        (191, "heartbeat"),
    )
    assert billed(*steps) == [1]


def test_records_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="comes after"):
        runs(trace((5, "started"), (4, "stopped")))


# The reference asks, at every moment at which anything can change, whether it ran then.

UPS, DOWNS = {Sign.STARTED, Sign.RESUMED}, {Sign.PAUSED, Sign.STOPPED, Sign.CRASHED}


def ran_at(sightings: list[Sighting], moment_ms: int) -> bool:
    """Up at that moment, and seen alive after it, before the run is known to have broken."""
    up = False
    for sighting in sightings:
        if sighting.at_ms <= moment_ms:
            up = (up or sighting.sign in UPS) and sighting.sign not in DOWNS
            continue
        if not up or sighting.sign in {Sign.CRASHED, Sign.STARTED}:
            return False
        if sighting.sign in {Sign.HEARTBEAT, Sign.PAUSED, Sign.STOPPED}:
            return True
    return False


def reference(sightings: list[Sighting]) -> set[int]:
    if not sightings:
        return set()
    span = range(sightings[0].at_ms // MINUTE_MS, sightings[-1].at_ms // MINUTE_MS + 1)
    moments = {sighting.at_ms for sighting in sightings} | {each * MINUTE_MS for each in span}
    return {moment // MINUTE_MS for moment in moments if ran_at(sightings, moment)}


# Gaps from nothing to some minutes, often exactly on the minute.
GAPS = st.one_of(
    st.sampled_from([0, 1, 999, 20_000, MINUTE_MS - 1, MINUTE_MS, MINUTE_MS + 1, 3 * MINUTE_MS]),
    st.integers(0, 5 * MINUTE_MS),
)
TRACES = st.lists(st.tuples(GAPS, st.sampled_from(Sign)), max_size=40)


def sightings_of(steps: list[tuple[int, Sign]]) -> list[Sighting]:
    at_ms, found = START_MS, []
    for gap_ms, sign in steps:
        at_ms += gap_ms
        found.append(Sighting(at_ms, sign))
    return found


@settings(max_examples=500, deadline=None)
@given(TRACES)
def test_any_trace_bills_what_the_reference_bills(steps: list[tuple[int, Sign]]) -> None:
    sightings = sightings_of(steps)
    found = minutes(sightings)
    assert found == sorted(reference(sightings))
    # Written twice, it bills the same; and never later than what is on disk.
    assert minutes([each for each in sightings for _ in range(2)]) == found
    assert all(minute * MINUTE_MS <= sightings[-1].at_ms for minute in found)


@settings(max_examples=200, deadline=None)
@given(TRACES, st.integers(0, 40))
def test_what_was_billed_halfway_stays_billed(steps: list[tuple[int, Sign]], halfway: int) -> None:
    """The job bills every minute: what comes later only adds."""
    sightings = sightings_of(steps)
    assert set(minutes(sightings[:halfway])) <= set(minutes(sightings))


# Amounts.


@pytest.mark.parametrize(
    ("nano_usd", "per", "minute"),
    [
        (120_000, "second", 7_200_000),  # $0.00012 a second
        (500_000_000, "hour", 8_333_334),  # $0.50 an hour is $0.008333333… a minute
        (33_000_000, "hour", 550_000),
        (1, "hour", 1),
        (0, "second", 0),
        (7, "minute", 7),
        (Fraction(1, 3), "second", 20),
    ],
)
def test_a_minute_is_rounded_up_once(nano_usd: int | Fraction, per: str, minute: int) -> None:
    assert nano_usd_per_minute(nano_usd, per) == minute


@given(st.fractions(0, 10**15), st.sampled_from([("second", 1), ("minute", 60), ("hour", 3600)]))
def test_rounding_is_less_than_a_nano(nano_usd: Fraction, unit: tuple[str, int]) -> None:
    per, seconds = unit
    over = nano_usd_per_minute(nano_usd, per) - nano_usd * 60 / seconds
    assert 0 <= over < 1


@pytest.mark.parametrize(("nano_usd", "per"), [(-1, "hour"), (1, "day"), (1, "")])
def test_no_price_is_refused(nano_usd: int, per: str) -> None:
    with pytest.raises(ValueError, match="no price"):
        nano_usd_per_minute(nano_usd, per)


# On the ledger.


async def test_the_ledger_bills_each_minute_once(tmp_path: Path) -> None:
    """Twice the same, overlapping, and again after a crash with what came on top."""
    price = nano_usd_per_minute(500_000_000, "hour")
    first = trace((0, "started"), (60, "heartbeat"), (130, "heartbeat"))
    more = [*first, *trace((400, "started"), (400, "heartbeat"), (430, "stopped"))]
    other = trace((0, "started"), (59, "stopped"))
    path, standings = tmp_path / "ledger.db", HandStandings(PRO)
    async with opened(path, standings=standings) as books:
        ledger = books.ledger
        told = to_bill("endpoint_1", [first], price)
        assert await ledger.bill_minutes("user_ann", told) == 3 * price
        assert await ledger.bill_minutes("user_ann", [*told, *told]) == 0
        assert await ledger.bill_minutes("user_ann", told[1:]) == 0
    # The process died without a word and was started again.
    async with opened(path, standings=standings) as books:
        ledger = books.ledger
        again = to_bill("endpoint_1", [more, other], price)
        assert [each.minute - FIRST for each in again] == [0, 1, 2, 6, 7, 0]
        assert await ledger.bill_minutes("user_ann", again) == 3 * price
        assert await ledger.bill_minutes("user_ann", again[::-1]) == 0
        rows = "SELECT period, amount_nano_usd FROM dues WHERE kind = 'endpoint'"
        assert await books.rows(rows) == [(PERIOD, 6 * price)]
        entries = "SELECT count(*), sum(amount_nano_usd) FROM entries WHERE kind = 'endpoint'"
        assert await books.rows(entries) == [(6, 6 * price)]
        assert await books.rows("SELECT count(*) FROM endpoint_minutes") == [(6,)]
        assert (await books.audit()).problems == []


async def test_a_minute_belongs_to_the_month_in_which_it_began(tmp_path: Path) -> None:
    ends = 1_796_083_200_000 // MINUTE_MS  # December 2026 begins
    told = [
        EndpointMinute(endpoint_id="endpoint_1", replica=0, minute=minute, amount_nano_usd=10)
        for minute in (ends - 2, ends - 1, ends)
    ]
    async with opened(tmp_path / "ledger.db", standings=HandStandings(PRO)) as books:
        books.clock.ms = (ends + 5) * MINUTE_MS
        assert await books.ledger.bill_minutes("user_ann", told) == 30
        rows = "SELECT period, amount_nano_usd FROM dues WHERE kind = 'endpoint' ORDER BY period"
        assert await books.rows(rows) == [("2026-11", 20), ("2026-12", 10)]
        assert (await books.audit()).problems == []


async def test_a_free_minute_is_noted_and_moves_no_money(tmp_path: Path) -> None:
    told = [EndpointMinute(endpoint_id="endpoint_1", replica=0, minute=FIRST, amount_nano_usd=0)]
    async with opened(tmp_path / "ledger.db") as books:
        assert await books.ledger.bill_minutes("user_ann", told) == 0
        assert await books.rows("SELECT count(*) FROM endpoint_minutes") == [(1,)]
        assert await books.rows("SELECT count(*) FROM entries WHERE kind = 'endpoint'") == [(0,)]
