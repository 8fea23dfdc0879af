"""Users' and orgs' own keys at providers: set, listed and removed here, sealed in the database.

No answer ever holds a secret. What calls need of the keys is in ``OwnKeys``, kept current here.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from app.clock import Clock
from app.errors import ConfigError, InvalidRequest, NotFound
from app.identity.master_keys import MasterKeySource
from app.identity.names import shown
from app.identity.own_keys import OwnKey, OwnKeys
from app.identity.provider_key_rows import (
    SELECT_INFO,
    SELECT_OWN,
    ProviderKeyInfo,
    insertion,
    key_info,
    own_key,
    rewrapping,
)
from app.identity.sealing import MasterKeys, SealBroken, Sealed
from app.storage.database import Database, Row, Transaction

T = TypeVar("T")
SECRET_LENGTH_MAX = 4096
# Four characters of a shorter secret would be too large a part of it.
HINTED_LENGTH_MIN = 20

_SECRET = re.compile(rf"[!-~]{{1,{SECRET_LENGTH_MAX}}}")
_logger = logging.getLogger(__name__)
_UNSEALED = Sealed(kid="", wrapped_key=b"", box=b"")


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation did: ``kid`` names the master key that seals now, ``unreadable`` counts the
    keys that no master key opens."""

    kid: str
    rewrapped: int
    unreadable: int


class ProviderKeys:
    """The provider_keys table. One process writes it, so ``own`` is always what it says."""

    def __init__(self, database: Database, clock: Clock, source: MasterKeySource) -> None:
        self.own = OwnKeys(database, clock)
        self._database = database
        self._clock = clock
        self._source = source
        self._masters: MasterKeys | None = None
        self._lock = asyncio.Lock()  # changes in memory come in the order of those on disk
        self._running: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Read the master keys, or make one; prove that they open what is here; load the keys.

        Raises ConfigError where a master key is missing or wrong.
        """
        async with self._lock:
            masters = await self._unlocked()
            rows = await self._database.read(SELECT_OWN)
            self.own.load(_vouched(own_key(row), masters) for row in rows)

    async def close(self) -> None:
        """Wait for the notes of use that are being written."""
        await self.own.close()

    async def put(
        self, owner_id: str, provider: str, secret: str, *, paid_fallback: bool, set_by: str
    ) -> ProviderKeyInfo:
        """Set the key of an owner at a provider, in place of the one before.

        Raises InvalidRequest for what cannot be a key, which it never repeats; ConfigError.
        """
        check_secret(secret)
        return await self._change(
            lambda: self._put(
                owner_id, provider, secret, paid_fallback=paid_fallback, set_by=set_by
            )
        )

    async def list(self, owner_id: str) -> list[ProviderKeyInfo]:
        """An owner's keys, by provider."""
        rows = await self._database.read(
            f"{SELECT_INFO} WHERE owner_id = ? ORDER BY provider", (owner_id,)
        )
        return [key_info(row) for row in rows]

    async def remove(self, owner_id: str, provider: str) -> ProviderKeyInfo:
        """End a key at once. Needs no master key. Raises NotFound."""
        return await self._change(lambda: self._remove(owner_id, provider))

    async def rotate(self) -> Rotation:
        """Wrap every key's data key under the current master key; a new one, if it is ours.

        However it is cut short, every key still opens, and doing it again goes on. Raises
        ConfigError.
        """
        return await self._change(self._rotate)

    async def forget_unreadable(self) -> int:
        """Remove the keys that no master key here opens, which nobody can use any more; how many.

        Raises ConfigError.
        """
        return await self._change(self._forget)

    async def _change(self, work: Callable[[], Awaitable[T]]) -> T:
        """Carry out a change to its end, in memory too, even when its caller is cancelled."""

        async def locked() -> T:
            async with self._lock:
                return await work()

        task = asyncio.create_task(locked())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _put(
        self, owner_id: str, provider: str, secret: str, *, paid_fallback: bool, set_by: str
    ) -> ProviderKeyInfo:
        masters = await self._unlocked()
        row_id, now_ms = f"pkey_{secrets.token_hex(16)}", self._clock.now_ms()
        hint = secret[-4:] if len(secret) >= HINTED_LENGTH_MIN else None
        draft = OwnKey(
            owner_id=owner_id,
            provider=provider,
            id=row_id,
            hint=hint,
            paid_fallback=paid_fallback,
            set_by=set_by,
            created_at_ms=now_ms,
            sealed=_UNSEALED,
        )
        key = msgspec.structs.replace(draft, sealed=masters.seal(secret, draft.context))
        await self._database.write(insertion(key, masters, now_ms))
        self.own.drop(owner_id, provider)
        self.own.put(key)
        return ProviderKeyInfo(
            owner_id=owner_id,
            provider=provider,
            hint=hint,
            paid_fallback=paid_fallback,
            set_by=set_by,
            created_at_ms=now_ms,
        )

    async def _remove(self, owner_id: str, provider: str) -> ProviderKeyInfo:
        def delete(tx: Transaction) -> ProviderKeyInfo:
            which = (owner_id, provider)
            rows = tx.execute(f"{SELECT_INFO} WHERE owner_id = ? AND provider = ?", which)
            if not rows:
                raise NotFound(f"There is no key for the provider {shown(provider)} here.")
            tx.execute("DELETE FROM provider_keys WHERE owner_id = ? AND provider = ?", which)
            return key_info(rows[0])

        gone = await self._database.write(delete)
        self.own.drop(owner_id, provider)
        return gone

    async def _rotate(self) -> Rotation:
        await self._unlocked()
        masters = await asyncio.to_thread(self._source.renew)
        await self._prove(masters)
        self._use(masters)
        rewrapped = unreadable = 0
        after = ""
        while True:
            done, broken, after = await self._database.write(
                rewrapping(masters, after, self._clock.now_ms())
            )
            for key in done:
                if key.provider in self.own.of(key.owner_id):
                    self.own.put(key)
            rewrapped += len(done)
            unreadable += broken
            if not after:
                break
        await self._database.write(
            lambda tx: tx.execute(
                "DELETE FROM master_keys"
                " WHERE kid NOT IN (SELECT kid FROM provider_keys) AND kid <> ?",
                (masters.current.kid,),
            )
        )
        return Rotation(kid=masters.current.kid, rewrapped=rewrapped, unreadable=unreadable)

    async def _forget(self) -> int:
        masters = await asyncio.to_thread(self._source.load)

        def delete(tx: Transaction) -> list[Row]:
            gone = []
            for row in tx.execute(SELECT_OWN):
                key = own_key(row)
                if masters is None or not _opens(masters, key):
                    tx.execute("DELETE FROM provider_keys WHERE id = ?", (key.id,))
                    gone.append((key.owner_id, key.provider))
            return gone

        gone = await self._database.write(delete)
        for owner_id, provider in gone:
            self.own.drop(owner_id, provider)
        return len(gone)

    async def _unlocked(self) -> MasterKeys:
        """The master keys, read and proved the first time. Raises ConfigError."""
        if self._masters is not None:
            return self._masters
        masters = await asyncio.to_thread(self._source.load)
        await self._prove(masters)
        if masters is None:
            masters = await asyncio.to_thread(self._source.make)
        self._use(masters)
        return masters

    def _use(self, masters: MasterKeys) -> None:
        self._masters = masters
        self.own.use(masters)

    async def _prove(self, masters: MasterKeys | None) -> None:
        """Raise ConfigError unless every key here is sealed under one of the master keys."""
        rows = await self._database.read(
            "SELECT kid, check_value FROM master_keys WHERE kid IN (SELECT kid FROM provider_keys)"
        )
        for kid, check_value in rows:
            master_key = None if masters is None else masters.with_kid(kid)
            if master_key is None:
                raise ConfigError(_wrong(self._source, kid, masters))
            if not master_key.is_of(check_value):
                raise ConfigError(
                    f"The database's check value of the master key with the id {kid} is damaged."
                    " Restore a backup: turnpike restore BACKUP."
                )


def check_secret(secret: str) -> None:
    """Raise InvalidRequest, without a word of it, for what cannot be a provider's key."""
    if not _SECRET.fullmatch(secret):
        raise InvalidRequest(
            f"A provider key has 1 to {SECRET_LENGTH_MAX} printable ASCII characters, without"
            " spaces or line ends.",
            param="secret",
        )


def _vouched(key: OwnKey, masters: MasterKeys) -> OwnKey:
    """The key as it was read; an altered one never opens, and allows nothing that costs money."""
    if masters.vouch(key.sealed, key.context):
        return key
    _logger.error("the key of %s for %s was altered, and is of no use", key.owner_id, key.provider)
    return msgspec.structs.replace(key, paid_fallback=False, sealed=_UNSEALED)


def _opens(masters: MasterKeys, key: OwnKey) -> bool:
    try:
        masters.open(key.sealed, key.context)
    except SealBroken:
        return False
    return True


def _wrong(source: MasterKeySource, kid: str, masters: MasterKeys | None) -> str:
    """What a start says that has not got the master key ``kid``."""
    if masters is None:
        what = f"{source.path}: the master key is missing, and provider keys here are sealed"
        given = "Put the file back from where you keep its copy (backups do not hold it)"
    else:
        where = "secrets.master_key" if source.is_configured else str(source.path)
        what = f"{where}: the wrong master key: provider keys here are sealed"
        given = f"Given: {', '.join(masters.kids)}. Give that one, or add it to"
        given += " secrets.old_master_keys"
    return (
        f"{what} under the one with the id {kid}. {given}; or remove the keys that it sealed with"
        " `turnpike secrets forget`, so that their owners set them again."
    )
