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
    """The pending rows of one table. ``values`` is flat: row after row, column after column."""

    def __init__(self, table: str, columns: str, upsert: str = "") -> None:
        self._width = columns.count(",") + 1
        self._head = " ".join(("INSERT INTO", table, "(", columns, ") VALUES "))
        self._row = f"({','.join('?' * self._width)})"
        self._tail = upsert
        self._sql: dict[int, str] = {}
        self.values: list[Any] = []

    def add(self, row: Iterable[Any]) -> None:
        """Append one row, in the order of the columns."""
        self.values.extend(row)

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write all rows and forget them."""
        values, width = self.values, self._width
        if not values:
            return
        start, rows = 0, len(values) // width
        while rows:
            length = _chunk(rows)
            end = start + length * width
            connection.execute(self._statement(length), values[start:end])
            start, rows = end, rows - length
        values.clear()

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
    """All tables that the ledger's verbs write, in the order that their references ask for."""

    def __init__(self) -> None:
        self.accounts = RowBuffer("accounts", "id, owner_id, kind, period")
        self.balances = RowBuffer(
            "balances",
            "payer_id, period, grant_account_id, overage_account_id, overage,"
            " granted_nano_usd, posted_nano_usd, held_nano_usd",
            " ON CONFLICT DO UPDATE SET overage = excluded.overage,"
            " granted_nano_usd = excluded.granted_nano_usd,"
            " posted_nano_usd = excluded.posted_nano_usd,"
            " held_nano_usd = excluded.held_nano_usd",
        )
        self.grants = RowBuffer(
            "grants", "payer_id, tier, period, reaches_nano_usd, amount_nano_usd, at_ms"
        )
        self.entries = RowBuffer(
            "entries",
            "at_ms, kind, subject, debit_account_id, credit_account_id, amount_nano_usd",
        )
        self.holds = RowBuffer(
            "holds",
            "call_id, payer_id, period, user_id, key_id, model, amount_nano_usd, overage,"
            " admitted_at_ms, expires_at_ms",
        )
        self.settlements = RowBuffer(
            "settlements",
            "call_id, payer_id, period, state, held_nano_usd, cost_nano_usd, overrun_nano_usd,"
            " ended_at_ms",
        )
        self.usage = RowBuffer(
            "usage",
            "at_ms, call_id, user_id, key_id, payer_id, model, provider, outcome, streamed,"
            " attempts, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens,"
            " reasoning_tokens, compute_ns, estimated, latency_ms, first_token_ms, cost_nano_usd",
        )
        self._in_order = (
            self.accounts,
            self.balances,
            self.grants,
            self.entries,
            self.holds,
            self.settlements,
            self.usage,
        )

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write everything that was gathered."""
        for buffer in self._in_order:
            buffer.flush(connection)
