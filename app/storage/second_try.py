"""The writer's connection: a statement that meets a full disk is tried again where room was made.

SQLITE_FULL says that nothing of the transaction is on the disk: the frames that were written to the
log have no commit among them, and the next ones go over them. SQLite has rolled the transaction
back, or is made to. So its statements so far are repeated, in their order, on the same state of the
database as before; then the one that failed. Whoever works with the connection sees nothing of it.
"""

import sqlite3
from collections.abc import Callable
from typing import Any


class SecondTryConnection(sqlite3.Connection):
    """In autocommit mode. ``make_room`` frees some of the disk; whether it did."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.make_room: Callable[[], bool] | None = None
        self._so_far: list[tuple[str, Any]] = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As sqlite3's. ``parameters`` stay as they are until the transaction has ended."""
        try:
            cursor = super().execute(sql, parameters)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
                raise
            if self.make_room is None or not self.make_room():
                raise
            cursor = self._again(sql, parameters)
        if not self.in_transaction:
            self._so_far.clear()
        elif not sql.startswith("SELECT"):
            self._so_far.append((sql, parameters))
        return cursor

    def _again(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        if self.in_transaction:
            super().execute("ROLLBACK")
        for statement, values in self._so_far:
            super().execute(statement, values)
        return super().execute(sql, parameters)
