"""Fills the disk that it is told of and goes on writing to a database there; prints what happens.

A process of its own, since the disk is only mounted for it.
"""

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from app.storage.database import Transaction
from app.storage.disk import BALLAST, DiskWatch
from app.storage.sqlite import SqliteDatabase

MIB = 1 << 20
ROW_BYTES = 20_000


def _fill(folder: Path) -> None:
    with (folder / "filling").open("wb", buffering=0) as file:
        size = MIB
        while size >= 512:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def _insert(tx: Transaction) -> int:
    sql = f"INSERT INTO t (s) VALUES (randomblob({ROW_BYTES})) RETURNING n"
    return int(tx.execute(sql)[0][0])


async def _work(folder: Path, how: str) -> dict[str, Any]:
    watch = DiskWatch(folder, free_bytes_min=4 * MIB, ballast_bytes=2 * MIB)
    watch.start()
    had_ballast = (folder / BALLAST).exists()
    database = SqliteDatabase(folder / "turnpike.db", make_room=watch.make_room)
    await database.open()
    await database.write(lambda tx: tx.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, s BLOB)"))
    if how == "in the middle":  # pages leave the memory before the commit
        await database.write(lambda tx: tx.execute("PRAGMA cache_size=4"))
        await database.write(lambda tx: tx.execute("PRAGMA cache_spill=1"))
    _fill(folder)
    endless = how == "until it stops"
    numbers: list[int] = []
    refused = ""
    if endless:
        while not refused:
            try:
                numbers.append(await database.write(_insert))
            except Exception as error:  # noqa: BLE001  (told to the test)
                refused = type(error).__name__
    else:
        again = "INSERT INTO t VALUES (1, 'again')"
        units = [database.write(_insert) for _ in range(40)]
        found = await asyncio.gather(
            *units, database.write(lambda tx: tx.execute(again)), return_exceptions=True
        )
        numbers = [each for each in found if isinstance(each, int)]
        refused = type(found[-1]).__name__
    stopped = database.failed is not None
    await database.close()
    (folder / "filling").unlink()
    with closing(sqlite3.connect(folder / "turnpike.db")) as connection:
        ((integrity,),) = connection.execute("PRAGMA integrity_check").fetchall()
        ((rows,),) = connection.execute("SELECT count(*) FROM t").fetchall()
    return {
        "had_ballast": had_ballast,
        "has_ballast": (folder / BALLAST).exists(),
        "numbers": numbers,
        "refused": refused,
        "stopped": stopped,
        "integrity": integrity,
        "rows": rows,
    }


if __name__ == "__main__":
    os.umask(0o077)
    print(json.dumps(asyncio.run(_work(Path(sys.argv[1]), sys.argv[2]))))
