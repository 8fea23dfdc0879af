"""The identity room over a real database, and a clock that only moves when told to."""

from dataclasses import dataclass
from pathlib import Path

from app.identity.keys import KeyRing, KeyStore
from app.identity.users import UserStore
from app.storage.database import Params, Row
from app.storage.sqlite import SqliteDatabase


class HandClock:
    """Time by hand."""

    suspended = False

    def __init__(self) -> None:
        self.wall_ms = 1_790_000_000_000
        self.ticks_ns = 5_000

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_ns(self) -> int:
        return self.ticks_ns

    def advance(self, seconds: int) -> None:
        self.wall_ms += seconds * 1000
        self.ticks_ns += seconds * 10**9


class CountedDatabase(SqliteDatabase):
    """The real one; counts its reads."""

    def __init__(self, path: Path, clock: HandClock) -> None:
        super().__init__(path, clock)
        self.path = path
        self.reads = 0

    async def read(self, sql: str, params: Params = ()) -> list[Row]:
        self.reads += 1
        return await super().read(sql, params)


@dataclass
class Rig:
    """The room's objects over one database."""

    database: CountedDatabase
    clock: HandClock
    users: UserStore
    keys: KeyStore
    ring: KeyRing

    async def member(self, name: str = "alice", tier: str = "free") -> str:
        """A user with one key: the key."""
        await self.users.add(name, tier)
        return (await self.keys.create(name, "laptop"))[1]


async def build(path: Path) -> Rig:
    """Fresh objects over the database at ``path``, which is left open."""
    clock = HandClock()
    database = CountedDatabase(path, clock)
    await database.open()
    users = UserStore(database, clock, {"free": 1, "pro": 2})
    keys = KeyStore(database, clock)
    return Rig(database, clock, users, keys, KeyRing(database, keys, users, clock))
