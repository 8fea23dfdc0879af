"""Each user's own order of providers, which ``:preferred`` goes by; in memory for the calls."""

import asyncio
import re
from collections.abc import Callable, Sequence

import msgspec

from app.clock import Clock
from app.errors import InvalidRequest, NotFound
from app.identity.changes import Changes
from app.identity.users import unknown_user
from app.storage.database import Database, Transaction

PROVIDERS_MAX = 64
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class PreferredOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A user's providers, best first; none where the user has set no order."""

    user_id: str
    user: str
    providers: list[str]


class PreferredOrders:
    """The preferred_providers table, and all of it in memory."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._changes = Changes()
        self._writing = asyncio.Lock()
        self._orders: dict[str, tuple[str, ...]] = {}

    async def load(self) -> None:
        """Read the table; before the first call."""
        for user_id, providers in await self._database.read(
            "SELECT user_id, providers FROM preferred_providers"
        ):
            self._orders[user_id] = tuple(providers.split())

    def of(self, user_id: str) -> tuple[str, ...]:
        """The user's order; empty where none is set."""
        return self._orders.get(user_id, ())

    async def shown(self, user_name: str) -> PreferredOrder:
        """The order of the user with this name. Raises NotFound."""
        rows = await self._database.read(_USER, (user_name,))
        if not rows:
            raise unknown_user(user_name)
        user_id, name = rows[0]
        return PreferredOrder(user_id=user_id, user=name, providers=list(self.of(user_id)))

    async def set(self, user_name: str, providers: Sequence[str]) -> PreferredOrder:
        """Set the order of the user with this name. Raises InvalidRequest, NotFound."""
        _check(providers)
        now_ms = self._clock.now_ms()

        def upsert(tx: Transaction) -> PreferredOrder:
            user_id, name = _user(tx, user_name)
            tx.execute(
                "INSERT INTO preferred_providers (user_id, providers, set_at_ms) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET providers = excluded.providers,"
                " set_at_ms = excluded.set_at_ms",
                (user_id, " ".join(providers), now_ms),
            )
            return PreferredOrder(user_id=user_id, user=name, providers=list(providers))

        return await self._change(upsert)

    async def clear(self, user_name: str) -> PreferredOrder:
        """Forget the user's order; what is left is none. Raises NotFound, also where none is."""

        def delete(tx: Transaction) -> PreferredOrder:
            user_id, name = _user(tx, user_name)
            if not tx.execute(
                "DELETE FROM preferred_providers WHERE user_id = ? RETURNING 1", (user_id,)
            ):
                raise NotFound(f"{name} has set no order of providers.")
            return PreferredOrder(user_id=user_id, user=name, providers=[])

        return await self._change(delete)

    async def _change(self, unit: Callable[[Transaction], PreferredOrder]) -> PreferredOrder:
        async def write() -> PreferredOrder:
            async with self._writing:  # so that memory takes changes in the order of the table
                order = await self._database.write(unit, is_note=True)
                if order.providers:
                    self._orders[order.user_id] = tuple(order.providers)
                else:
                    self._orders.pop(order.user_id, None)
                return order

        return await self._changes.follow(write(), lambda order: order.user_id)


_USER = "SELECT id, name FROM users WHERE name = ?"


def _user(tx: Transaction, name: str) -> tuple[str, str]:
    rows = tx.execute(_USER, (name,))
    if not rows:
        raise unknown_user(name)
    user_id, found = rows[0]
    return user_id, found


def _check(providers: Sequence[str]) -> None:
    good = 0 < len(providers) <= PROVIDERS_MAX and len(set(providers)) == len(providers)
    if not good or not all(_PROVIDER.fullmatch(each) for each in providers):
        raise InvalidRequest(
            f"Give 1 to {PROVIDERS_MAX} names of providers, each once, best first.",
            param="providers",
        )
