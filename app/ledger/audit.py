"""Rebuilds every balance from the journal and compares: the proof of I1, I2, I3 and I6.

Reads only (its scratch tables are temporary). It works on one snapshot, so it may run beside a
server that is taking calls, and holds few rows in memory at a time, however many there are.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from app.ledger.accounts import HouseAccount
from app.ledger.audit_questions import BOOKINGS, CACHES, JOURNAL, PREPARE, TIDY_UP, Area, Question
from app.ledger.audit_usage import USAGE
from app.ledger.verify import Walk, verify_all
from app.storage.database import Params, Row, Transaction
from app.storage.read_only import DAMAGE_CODES, open_read_only, page_damage

PROBLEMS_SHOWN_MAX = 20
QUESTIONS = (*JOURNAL, *CACHES, *BOOKINGS, *USAGE)

Progress = Callable[[int, int], None]
"""Told how many steps are done, and of how many."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be."""

    area: Area
    text: str


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit found. ``house`` is what each house account's credits exceed its debits by.

    ``chain_seq`` and ``chain_head`` are the last entry of the journal that the hash chain proves,
    and its hash in hexadecimal digits. Amounts are nano-USD.
    """

    problems: list[str]
    entries: int
    calls: int
    open_holds: int
    house: dict[str, int]
    findings: list[Finding] = []
    chain_seq: int = 0
    chain_head: str = ""


def audit(transaction: Transaction, progress: Progress | None = None) -> Audit:
    """Check everything that the tables say twice, in the transaction's snapshot."""
    tell = progress or (lambda _done, _steps: None)
    steps = len(QUESTIONS) + 3
    findings: list[Finding] = []
    tell(0, steps)
    walk = verify_all(transaction.execute)
    if walk.problem is not None:
        findings.append(Finding(Area.JOURNAL, walk.problem))
    tell(1, steps)
    try:
        for sql in (*TIDY_UP, *PREPARE):
            transaction.execute(sql)
        tell(2, steps)
        for done, question in enumerate(QUESTIONS, 3):
            findings += _answers(transaction, question)
            tell(done, steps)
        findings += _references(transaction)
        findings += _balance(transaction)
        return _report(transaction, findings, walk)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        findings.append(Finding(Area.JOURNAL, f"the database cannot be read: {error}"))
        return _result(findings, walk)
    finally:
        for sql in TIDY_UP:
            transaction.execute(sql)


def audit_file(path: Path, progress: Progress | None = None) -> Audit:
    """Audit a database file on its own connection, which reads and never checkpoints.

    Raises DatabaseRefused where it cannot be opened, or is not of this program's schema.
    """
    connection = open_read_only(path)
    try:
        connection.execute("BEGIN")
        damage = [Finding(Area.JOURNAL, text) for text in page_damage(connection)]
        return _result(damage, Walk()) if damage else audit(Snapshot(connection), progress)
    finally:
        connection.close()


class Snapshot(Transaction):
    """A read transaction of its own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, params: Params = ()) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()


def _answers(transaction: Transaction, question: Question) -> list[Finding]:
    found = transaction.execute(f"{question.sql} LIMIT {PROBLEMS_SHOWN_MAX}")
    return [Finding(question.area, question.text.format(*row)) for row in found]


def _references(transaction: Transaction) -> list[Finding]:
    return [
        Finding(Area.JOURNAL, f"table {row[0]} refers to a row of {row[2]} that does not exist")
        for row in transaction.execute("SELECT * FROM pragma_foreign_key_check LIMIT 20")
    ]


_ALL_SIDES = (
    "SELECT coalesce(sum(high), 0), coalesce(sum(low), 0) FROM audit_flows JOIN accounts ON id ="
)


def _balance(transaction: Transaction) -> list[Finding]:
    """Over all accounts, credits are debits (I1)."""
    ((credit_high, credit_low),) = transaction.execute(f"{_ALL_SIDES} credit")
    ((debit_high, debit_low),) = transaction.execute(f"{_ALL_SIDES} debit")
    credits = _amount(credit_high, credit_low)
    debits = _amount(debit_high, debit_low)
    if credits == debits:
        return []
    text = f"all accounts together got {credits} nano-USD and gave {debits}"
    return [Finding(Area.JOURNAL, text)]


def _report(transaction: Transaction, findings: list[Finding], walk: Walk) -> Audit:
    ((entries, calls, open_holds),) = transaction.execute(
        "SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM settlements),"
        " (SELECT count(*) FROM holds)"
    )
    house = {}
    for account in HouseAccount:
        ((gained_high, gained_low),) = transaction.execute(
            f"{_ALL_SIDES} credit WHERE id = ?", (account.value,)
        )
        ((lost_high, lost_low),) = transaction.execute(
            f"{_ALL_SIDES} debit WHERE id = ?", (account.value,)
        )
        gained, lost = _amount(gained_high, gained_low), _amount(lost_high, lost_low)
        house[account.name.lower()] = gained - lost
    return _result(findings, walk, entries, calls, open_holds, house)


def _result(
    findings: list[Finding],
    walk: Walk,
    entries: int = 0,
    calls: int = 0,
    open_holds: int = 0,
    house: dict[str, int] | None = None,
) -> Audit:
    return Audit(
        problems=[finding.text for finding in findings],
        findings=findings,
        entries=entries,
        calls=calls,
        open_holds=open_holds,
        house=house or {},
        chain_seq=walk.seq,
        chain_head=walk.hash.hex(),
    )


def _amount(high: int, low: int) -> int:
    return (high << 30) + low


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite found the file itself wanting; Python reports a text that is none."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in DAMAGE_CODES
