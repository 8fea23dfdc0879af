"""Which SQLite the ledger works on."""

import sqlite3


def sqlite_version() -> str:
    """As SQLite itself says."""
    return sqlite3.sqlite_version
