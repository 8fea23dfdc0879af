"""Rows on their way to the disk: gathered during a group, written with few statements.

A statement costs the writer thread a turn at the interpreter lock, a row only its bytes. So rows
of one table go out in one ``INSERT … VALUES (…),(…)``, whose texts are kept so that SQLite
prepares each length once.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any

_LENGTHS = (256, 128, 64)
_ANY_LENGTH_MAX = 32


class RowBuffer:
    """The pending rows of one table. ``values`` is flat: row after row, column after column.

    ``flush_after`` are statements of their own for after the rows: rare ones.
    """

    def __init__(self, table: str, columns: str, upsert: str = "") -> None:
        self._width = columns.count(",") + 1
        self._head = " ".join(("INSERT INTO", table, "(", columns, ") VALUES "))
        self._row = f"({','.join('?' * self._width)})"
        self._tail = upsert
        self._sql: dict[int, str] = {}
        self.values: list[Any] = []
        self.flush_after: list[tuple[str, tuple[Any, ...]]] = []

    def add(self, row: Iterable[Any]) -> None:
        """Append one row, in the order of the columns."""
        self.values.extend(row)

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write all rows and forget them."""
        values, width = self.values, self._width
        if not values and not self.flush_after:
            return
        start, rows = 0, len(values) // width
        while rows:
            length = _chunk(rows)
            end = start + length * width
            connection.execute(self._statement(length), values[start:end])
            start, rows = end, rows - length
        values.clear()
        for sql, params in self.flush_after:
            connection.execute(sql, params)
        self.flush_after.clear()

    def _statement(self, length: int) -> str:
        sql = self._sql.get(length)
        if sql is None:
            sql = self._head + ",".join([self._row] * length) + self._tail
            self._sql[length] = sql
        return sql


def _chunk(rows: int) -> int:
    """How many of ``rows`` the next statement takes: few enough lengths to keep all prepared."""
    if rows <= _ANY_LENGTH_MAX:
        return rows
    return next((length for length in _LENGTHS if length <= rows), _ANY_LENGTH_MAX)


class LedgerRows:
    """All tables that the ledger's verbs write, in the order that their references ask for.

    Usage rows and their sums are ``usage_rows.py``'s.
    """

    def __init__(self) -> None:
        self.accounts = RowBuffer("accounts", "id, owner_id, kind, period")
        # `closed` is left out of the update: it has an index, which a charge need not touch.
        self.grants = RowBuffer(
            "grants",
            "id, payer_id, kind, reference, account_id, starts_at_ms, expires_at_ms, note, closed,"
            " granted_nano_usd, spent_nano_usd, expired_nano_usd",
            " ON CONFLICT (id) DO UPDATE SET granted_nano_usd = excluded.granted_nano_usd,"
            " spent_nano_usd = excluded.spent_nano_usd,"
            " expired_nano_usd = excluded.expired_nano_usd, note = excluded.note",
        )
        self.wallets = RowBuffer(
            "wallets",
            "payer_id, overage, credit_nano_usd, held_nano_usd",
            " ON CONFLICT DO UPDATE SET overage = excluded.overage,"
            " credit_nano_usd = excluded.credit_nano_usd, held_nano_usd = excluded.held_nano_usd",
        )
        self.dues = RowBuffer(
            "dues",
            "payer_id, period, kind, account_id, amount_nano_usd",
            " ON CONFLICT DO UPDATE SET amount_nano_usd = excluded.amount_nano_usd",
        )
        self.limit_months = RowBuffer(
            "limit_months",
            "scope, subject_id, period, set_at_ms, amount_nano_usd, past, posted_nano_usd,"
            " held_nano_usd",
            " ON CONFLICT DO UPDATE SET set_at_ms = excluded.set_at_ms,"
            " amount_nano_usd = excluded.amount_nano_usd,"
            " past = excluded.past, posted_nano_usd = excluded.posted_nano_usd,"
            " held_nano_usd = excluded.held_nano_usd",
        )
        self.entries = RowBuffer(
            "entries",
            "seq, at_ms, period, kind, subject, debit_account_id, credit_account_id,"
            " amount_nano_usd, hash",
        )
        self.holds = RowBuffer(
            "holds",
            "call_id, payer_id, period, user_id, key_id, group_id, model, amount_nano_usd, overage,"
            " byok, admitted_at_ms, expires_at_ms",
        )
        self.settlements = RowBuffer(
            "settlements",
            "call_id, payer_id, period, state, held_nano_usd, cost_nano_usd, overrun_nano_usd,"
            " lost_nano_usd, ended_at_ms",
        )
        self.events = RowBuffer(
            "events",
            "at_ms, kind, scope, subject_id, period, amount_nano_usd, limit_nano_usd",
            " ON CONFLICT DO NOTHING",
        )
        self._in_order = (
            self.accounts,
            self.grants,
            self.wallets,
            self.dues,
            self.limit_months,
            self.entries,
            self.holds,
            self.settlements,
            self.events,
        )

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write everything that was gathered."""
        for buffer in self._in_order:
            buffer.flush(connection)
