"""Rebuilds every balance from the journal and compares: the proof of I1, I3 and I6 on a database.

Reads only. It works on one snapshot, so it may run beside a server that is taking calls.
"""

import sqlite3
from pathlib import Path

import msgspec

from app.storage.database import Params, Row, Transaction

PROBLEMS_SHOWN_MAX = 20

# What each question finds is wrong: a subject, and two numbers that should be equal.
_QUESTIONS = {
    "the entries of account {0} add up to {1}, the other side of them to {2}": """
        SELECT 'all', coalesce(sum(side.amount), 0), 0 FROM (
            SELECT credit_account_id AS id, amount_nano_usd AS amount FROM entries
            UNION ALL
            SELECT debit_account_id, -amount_nano_usd FROM entries
        ) side JOIN accounts USING (id)
        HAVING coalesce(sum(side.amount), 0) <> 0
    """,
    "the credit of {0} is {1}, its entries say {2}": """
        WITH given AS (
            SELECT credit_account_id AS id, sum(amount_nano_usd) AS amount
            FROM entries WHERE kind = 'grant' GROUP BY 1
        )
        SELECT payer_id || ' ' || period, granted_nano_usd, coalesce(amount, 0) AS journal
        FROM balances LEFT JOIN given ON id = grant_account_id
        WHERE granted_nano_usd <> journal
    """,
    "the grants of {0} add up to {1}, its entries say {2}": """
        WITH given AS (
            SELECT credit_account_id AS id, sum(amount_nano_usd) AS amount
            FROM entries WHERE kind = 'grant' GROUP BY 1
        ), noted AS (
            SELECT payer_id, period, sum(amount_nano_usd) AS amount FROM grants GROUP BY 1, 2
        )
        SELECT b.payer_id || ' ' || b.period, coalesce(n.amount, 0) AS rows,
               coalesce(g.amount, 0) AS journal
        FROM balances b LEFT JOIN given g ON g.id = b.grant_account_id
        LEFT JOIN noted n ON n.payer_id = b.payer_id AND n.period = b.period
        WHERE rows <> journal
    """,
    "{0} has spent {1}, its entries say {2}": """
        WITH spent AS (
            SELECT debit_account_id AS id, sum(amount_nano_usd) AS amount FROM entries GROUP BY 1
        )
        SELECT payer_id || ' ' || period, posted_nano_usd,
               coalesce(g.amount, 0) + coalesce(o.amount, 0) AS journal
        FROM balances LEFT JOIN spent g ON g.id = grant_account_id
        LEFT JOIN spent o ON o.id = overage_account_id
        WHERE posted_nano_usd <> journal
    """,
    "{0} took {2} out of a credit of {1}": """
        WITH spent AS (
            SELECT debit_account_id AS id, sum(amount_nano_usd) AS amount FROM entries GROUP BY 1
        )
        SELECT payer_id || ' ' || period, granted_nano_usd, amount
        FROM balances JOIN spent ON id = grant_account_id WHERE amount > granted_nano_usd
    """,
    "{0} has {1} held, its open holds say {2}": """
        WITH open AS (
            SELECT payer_id, period, sum(amount_nano_usd) AS amount FROM holds GROUP BY 1, 2
        )
        SELECT payer_id || ' ' || period, held_nano_usd, coalesce(amount, 0) AS rows
        FROM balances LEFT JOIN open USING (payer_id, period) WHERE held_nano_usd <> rows
        UNION ALL
        SELECT payer_id || ' ' || period, 0, amount FROM open LEFT JOIN balances
        USING (payer_id, period) WHERE held_nano_usd IS NULL
    """,
    "{0} is past its hard stop: {1} spent and held of {2}": """
        SELECT payer_id || ' ' || period, posted_nano_usd + held_nano_usd, granted_nano_usd
        FROM balances
        WHERE overage = 0 AND posted_nano_usd + held_nano_usd > granted_nano_usd
    """,
    "call {0} cost {1}, its entries on its payer's accounts say {2}": """
        WITH paid AS (
            SELECT subject, owner_id, period, sum(amount_nano_usd) AS amount
            FROM entries JOIN accounts ON accounts.id = debit_account_id
            WHERE entries.kind IN ('charge', 'overage') GROUP BY 1, 2, 3
        )
        SELECT call_id, cost_nano_usd, coalesce(amount, 0) AS journal
        FROM settlements s LEFT JOIN paid
        ON subject = call_id AND owner_id = payer_id AND paid.period = s.period
        WHERE cost_nano_usd <> journal
        UNION ALL
        SELECT subject, 0, amount FROM paid LEFT JOIN settlements s ON call_id = subject
        AND payer_id = owner_id AND s.period = paid.period WHERE call_id IS NULL
    """,
    "call {0} cost the house {1}, its entries say {2}": """
        WITH borne AS (
            SELECT subject, sum(amount_nano_usd) AS amount
            FROM entries WHERE kind = 'overrun' GROUP BY 1
        )
        SELECT call_id, overrun_nano_usd, coalesce(amount, 0) AS journal
        FROM settlements LEFT JOIN borne ON subject = call_id WHERE overrun_nano_usd <> journal
        UNION ALL
        SELECT subject, 0, amount FROM borne LEFT JOIN settlements ON call_id = subject
        WHERE call_id IS NULL
    """,
    "call {0} was not given up, but {2} of its cost was forgiven": """
        SELECT subject, 0, amount_nano_usd FROM entries LEFT JOIN settlements ON call_id = subject
        WHERE kind = 'forgiven' AND coalesce(state, '') <> 'gave_up'
    """,
    "call {0} was charged {1}, its usage row says {2}": """
        WITH used AS MATERIALIZED (
            SELECT call_id, count(*) AS rows, sum(cost_nano_usd) AS amount FROM usage GROUP BY 1
        )
        SELECT call_id, cost_nano_usd, coalesce(amount, -1)
        FROM settlements LEFT JOIN used USING (call_id)
        WHERE rows IS NOT 1 OR cost_nano_usd <> amount
        UNION ALL
        SELECT call_id, -1, u.cost_nano_usd FROM usage u LEFT JOIN settlements s USING (call_id)
        WHERE s.state IS NULL
    """,
    "call {0} has ended and still holds {1}": """
        SELECT call_id, amount_nano_usd, 0 FROM holds JOIN settlements USING (call_id)
    """,
}


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit found. ``house`` is what each house account's credits exceed its debits by."""

    problems: list[str]
    entries: int
    calls: int
    open_holds: int
    house: dict[str, int]


def audit(transaction: Transaction) -> Audit:
    """Check everything that the tables say twice, in the transaction's snapshot."""
    problems = []
    for text, sql in _QUESTIONS.items():
        found = transaction.execute(f"{sql} LIMIT {PROBLEMS_SHOWN_MAX}")
        problems += [text.format(*row) for row in found]
    for row in transaction.execute("PRAGMA foreign_key_check"):
        problems.append(f"table {row[0]} refers to a row of {row[2]} that does not exist")
    ((entries, calls, open_holds),) = transaction.execute(
        "SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM settlements),"
        " (SELECT count(*) FROM holds)"
    )
    house = transaction.execute(
        "SELECT kind, coalesce((SELECT sum(amount_nano_usd) FROM entries"
        " WHERE credit_account_id = id), 0) - coalesce((SELECT sum(amount_nano_usd) FROM entries"
        " WHERE debit_account_id = id), 0) FROM accounts WHERE owner_id = 'house' ORDER BY id"
    )
    return Audit(
        problems=problems,
        entries=entries,
        calls=calls,
        open_holds=open_holds,
        house=dict(house),
    )


def audit_file(path: Path) -> Audit:
    """Audit a database file on its own connection, which reads and never checkpoints."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("BEGIN")
        return audit(_Snapshot(connection))
    finally:
        connection.close()


class _Snapshot(Transaction):
    """A read transaction of its own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, params: Params = ()) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()
