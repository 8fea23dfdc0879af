"""What parties have used, day by day, whatever the order in which calls end."""

import sqlite3
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from app.clock import DAY_MS
from app.ledger.entries import Outcome, UsageRow
from app.ledger.usage_rows import UsageRows
from app.storage.migrate import migrate, shipped_migrations

_CALLS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 99)), max_size=12)


@given(groups=st.lists(_CALLS, max_size=6), restart_after=st.integers(0, 6))
def test_a_party_has_used_what_its_calls_come_to(
    groups: list[list[tuple[int, int, int]]], restart_after: int
) -> None:
    """Groups of calls (party, day, cost), the process anew after some of them."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, shipped_migrations(), 0)
    usage, spent = _opened(connection), defaultdict[tuple[int, int], int](int)
    for number, calls in enumerate(groups):
        if number == restart_after:
            usage = _opened(connection)
        for index, (party, day, cost) in enumerate(calls):
            usage.add(_row(f"{number}-{index}", party, day), cost, "")
            spent[(party, day)] += cost
        usage.flush(connection)
        assert _stored(connection) == _running(spent)
    connection.close()


def _opened(connection: sqlite3.Connection) -> UsageRows:
    usage = UsageRows()
    usage.opened(connection)
    return usage


def _row(call_id: str, party: int, day: int) -> UsageRow:
    return UsageRow(
        call_id=call_id,
        at_ms=day * DAY_MS,
        user_id=f"user_{party}",
        key_id="key",
        payer_id=f"user_{party}",
        model="acme/tiny",
        provider="mock",
        outcome=Outcome.COMPLETED,
        streamed=False,
        attempts=1,
    )


def _stored(connection: sqlite3.Connection) -> dict[tuple[int, int], int]:
    rows = connection.execute(
        "SELECT substr(user_id, 6), day, usage_parties.cost_nano_usd"
        " FROM usage_parties JOIN series ON id = usage_parties.party_id"
    )
    return {(int(party), day): cost for party, day, cost in rows}


def _running(spent: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    return {
        (party, day): sum(
            cost for (other, at), cost in spent.items() if other == party and at <= day
        )
        for party, day in spent
    }
