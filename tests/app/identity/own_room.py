"""Own provider keys over a real database, as a process has them, and what may befall the file."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from app.config_routing import Secrets
from app.identity.master_keys import MasterKeySource
from app.identity.provider_keys import ProviderKeys
from app.storage.sqlite import SqliteDatabase
from tests.app.identity.rig import HandClock

SECRET = "sk-canary-0123456789-abcdefgh"


class Room:
    """The room's objects over one directory, as a process has them."""

    def __init__(self, data_dir: Path, clock: HandClock, secrets: Secrets) -> None:
        self.data_dir = data_dir
        self.clock = clock
        self.database = SqliteDatabase(data_dir / "turnpike.db", clock)
        self.source = MasterKeySource(secrets, data_dir)
        self.keys = ProviderKeys(self.database, clock, self.source)

    async def put(self, owner: str, provider: str = "mock", secret: str = SECRET) -> None:
        await self.keys.put(owner, provider, secret, paid_fallback=False, set_by=owner)

    def opened(self, owner: str, provider: str = "mock") -> str:
        return self.keys.own.open(self.keys.own.of(owner)[provider])


@contextlib.asynccontextmanager
async def room(
    data_dir: Path, clock: HandClock | None = None, secrets: Secrets | None = None
) -> AsyncIterator[Room]:
    """A started one."""
    made = Room(data_dir, clock or HandClock(), secrets or Secrets())
    await made.database.open()
    try:
        await made.keys.open()
        yield made
    finally:
        await made.keys.close()
        await made.database.close()


def spoil(database: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(database)
    connection.execute(statement, values)
    connection.commit()
    connection.close()
