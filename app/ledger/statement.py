"""An account's entries in order, with the balance after each: what there is to argue with.

A payer's statement is over all its accounts: grants add, calls and what else it pays take away.
The balance is what is left of its credit less what it owes for overage, fees and endpoints.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from app.errors import NotFound
from app.storage.read_only import open_read_only

HOUSE = "house"
_EVER_MS = 2**62


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One entry as its account sees it. ``amount_nano_usd`` is positive for what came in."""

    seq: int
    at_ms: int
    period: str
    kind: str
    subject: str
    account: str
    other: str
    amount_nano_usd: int
    balance_nano_usd: int


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a statement. ``kept_nano_usd`` is the balance that is kept beside the journal:
    None where there is none (the house, one account, an earlier end)."""

    opening_nano_usd: int
    came_nano_usd: int
    went_nano_usd: int
    closing_nano_usd: int
    lines: int
    kept_nano_usd: int | None

    @property
    def adds_up(self) -> bool:
        """Whether the lines make the closing balance, and that is the one that is kept."""
        total = self.opening_nano_usd + self.came_nano_usd - self.went_nano_usd
        return total == self.closing_nano_usd and self.kept_nano_usd in (None, total)


class Statement:
    """One account, or all of a payer, within one snapshot of the database."""

    def __init__(
        self, connection: sqlite3.Connection, title: str, where: str, values: tuple[str, ...]
    ) -> None:
        self.title = title
        self._connection = connection
        self._whole = len(values) == 1 and values[0] != HOUSE
        self._owner = values[0]
        self._ids = f"SELECT id FROM accounts WHERE {where}"  # noqa: S608 - of this module
        self._values = values
        self.closing: Closing | None = None

    def lines(self, since_ms: int | None = None, until_ms: int | None = None) -> Iterator[Line]:
        """The entries from ``since_ms`` up to, and without, ``until_ms``, oldest first.

        ``closing`` is there once they were all taken.
        """
        balance = opening = self._opening(since_ms)
        came = went = count = 0
        for row in self._connection.execute(
            f"WITH mine AS MATERIALIZED ({self._ids})"  # noqa: S608
            " SELECT e.seq, e.at_ms, e.period, e.kind, e.subject, e.amount_nano_usd,"
            " e.credit_account_id IN mine, e.debit_account_id IN mine,"
            " c.owner_id, c.kind, c.period, d.owner_id, d.kind, d.period"
            " FROM entries e JOIN accounts c ON c.id = e.credit_account_id"
            " JOIN accounts d ON d.id = e.debit_account_id"
            " WHERE (e.credit_account_id IN mine OR e.debit_account_id IN mine)"
            " AND e.at_ms >= ? AND e.at_ms < ? ORDER BY e.seq",
            (*self._values, since_ms or 0, _EVER_MS if until_ms is None else until_ms),
        ):
            amount = row[5] * (row[6] - row[7])
            balance += amount
            came, went = came + max(amount, 0), went + max(-amount, 0)
            count += 1
            credited, debited = _name(*row[8:11]), _name(*row[11:14])
            yield Line(
                seq=row[0],
                at_ms=row[1],
                period=row[2],
                kind=row[3],
                subject=row[4],
                account=credited if row[6] else debited,
                other=debited if row[6] else credited,
                amount_nano_usd=amount,
                balance_nano_usd=balance,
            )
        self.closing = Closing(
            opening_nano_usd=opening,
            came_nano_usd=came,
            went_nano_usd=went,
            closing_nano_usd=balance,
            lines=count,
            kept_nano_usd=self._kept() if self._whole and until_ms is None else None,
        )

    def _opening(self, since_ms: int | None) -> int:
        """The balance before; in two halves, since the house's may leave 64 bits."""
        if since_ms is None:
            return 0
        total = 0
        for side, sign in (("credit_account_id", 1), ("debit_account_id", -1)):
            high, low = self._connection.execute(
                "SELECT coalesce(sum(amount_nano_usd >> 30), 0),"  # noqa: S608
                " coalesce(sum(amount_nano_usd & 1073741823), 0) FROM entries"
                f" WHERE {side} IN ({self._ids}) AND at_ms < ?",
                (*self._values, since_ms),
            ).fetchone()
            total += sign * ((high << 30) + low)
        return total

    def _kept(self) -> int:
        kept: int = self._connection.execute(
            "SELECT coalesce((SELECT credit_nano_usd FROM wallets WHERE payer_id = ?1), 0)"
            " - coalesce((SELECT sum(amount_nano_usd) FROM dues WHERE payer_id = ?1), 0)",
            (self._owner,),
        ).fetchone()[0]
        return kept


@contextmanager
def open_statement(path: Path, account: str) -> Iterator[Statement]:
    """The statement of ``account`` in a database file, which is only read.

    That is a user's or an org's name or id, alone or with a kind of account and its period
    (``ann:monthly:2026-11``), or ``house:`` and a kind. Raises NotFound, DatabaseRefused.
    """
    connection = open_read_only(path)
    try:
        connection.execute("BEGIN")
        yield _find(connection, account)
    finally:
        connection.close()


def _find(connection: sqlite3.Connection, account: str) -> Statement:
    owner, *rest = account.split(":")
    if owner.lower() != HOUSE:
        found = connection.execute(
            "SELECT id, name FROM users WHERE id = ?1 OR name = ?1"
            " UNION ALL SELECT id, name FROM orgs WHERE id = ?1 OR name = ?1"
            " UNION ALL SELECT owner_id, owner_id FROM accounts WHERE owner_id = ?1 LIMIT 1",
            (owner,),
        ).fetchone()
        if found is None:
            raise NotFound(f"There is no user or org {owner!r}. {_HOW}")
        owner_id, title = found
    else:
        owner_id = title = HOUSE
        if not rest:
            raise NotFound(f"The house has several accounts. {_house(connection)}")
    where = ("owner_id = ?", "kind = ?", "period = ?")[: 1 + len(rest)]
    values = (owner_id, *rest)[: len(where)]
    statement = Statement(connection, ":".join((title, *rest)), " AND ".join(where), tuple(values))
    if (
        rest
        and not connection.execute(
            f"SELECT 1 FROM accounts WHERE {' AND '.join(where)}",  # noqa: S608
            values,
        ).fetchone()
    ):
        hint = _house(connection) if owner_id == HOUSE else _HOW
        raise NotFound(f"There is no account {account!r}. {hint}")
    return statement


_HOW = "Give a name or an id, NAME:KIND or NAME:KIND:PERIOD, or house:KIND."


def _house(connection: sqlite3.Connection) -> str:
    kinds = connection.execute("SELECT kind FROM accounts WHERE owner_id = 'house' ORDER BY kind")
    return f"There are {', '.join(f'house:{kind}' for (kind,) in kinds)}."


def _name(owner_id: str, kind: str, period: str) -> str:
    return ":".join(part for part in (owner_id, kind, period) if part)
