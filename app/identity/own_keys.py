"""Users' and orgs' own provider keys as calls need them: all of them in memory, still sealed.

``of`` costs one look-up. A key is opened only for the attempt that sends it, and kept nowhere.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from app.clock import Clock
from app.identity.sealing import Context, MasterKeys, SealBroken, Sealed
from app.storage.database import Database, Transaction

NOTE_NS_MIN = 60 * 10**9
FAILURE_LENGTH_MAX = 64
_NONE: Mapping[str, "OwnKey"] = MappingProxyType({})
_logger = logging.getLogger(__name__)


class OwnKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a user or an org at a provider, sealed.

    ``paid_fallback``: when this key fails, the call may go on at the payer's expense.
    """

    owner_id: str
    provider: str
    id: str
    hint: str | None
    paid_fallback: bool
    set_by: str
    created_at_ms: int
    sealed: Sealed

    def __repr__(self) -> str:
        return f"OwnKey({self.owner_id}, {self.provider}, {self.id})"

    @property
    def context(self) -> Context:
        """What the secret is bound to: its table, and every column that does not change."""
        return (
            "provider_keys",
            self.id,
            self.owner_id,
            self.provider,
            self.hint,
            int(self.paid_fallback),
            self.set_by,
            self.created_at_ms,
        )


class OwnKeys:
    """All keys by owner and provider. ``ProviderKeys`` loads them and tells of every change."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._masters: MasterKeys | None = None
        self._by_owner: dict[str, Mapping[str, OwnKey]] = {}
        self._noted_ns: dict[tuple[str, str], int] = {}
        self._noting: set[asyncio.Task[None]] = set()

    @property
    def any(self) -> bool:
        """Whether anybody has one."""
        return bool(self._by_owner)

    def of(self, owner_id: str) -> Mapping[str, OwnKey]:
        """The keys of a user or an org by provider; it does not change under the reader."""
        return self._by_owner.get(owner_id, _NONE)

    def open(self, key: OwnKey) -> str:
        """The secret, for the attempt that sends it: never keep or log it.

        Raises SealBroken where the row was altered; the call must fail as with a bad key then.
        """
        if self._masters is None:
            raise SealBroken("No master key has been read.")
        return self._masters.open(key.sealed, key.context)

    def note_use(self, key: OwnKey) -> None:
        """A call with this key succeeded. Written behind the caller's back, once a minute."""
        self._note(key, "used", "")

    def note_failure(self, key: OwnKey, kind: str) -> None:
        """An attempt with this key failed: ``kind`` is the failure's kind, no provider's words."""
        self._note(key, "failed", kind[:FAILURE_LENGTH_MAX])

    async def close(self) -> None:
        """Wait for the notes that are being written."""
        await asyncio.gather(*self._noting)

    def use(self, masters: MasterKeys) -> None:
        """Open with these from now on."""
        self._masters = masters

    def load(self, keys: Iterable[OwnKey]) -> None:
        """Take these for all that there are."""
        found: dict[str, dict[str, OwnKey]] = {}
        for key in keys:
            found.setdefault(key.owner_id, {})[key.provider] = key
        self._by_owner = {**found}

    def put(self, key: OwnKey) -> None:
        """A key was set, or wrapped anew."""
        self._by_owner[key.owner_id] = {**self.of(key.owner_id), key.provider: key}

    def drop(self, owner_id: str, provider: str) -> None:
        """A key was removed."""
        left = {name: key for name, key in self.of(owner_id).items() if name != provider}
        gone = self.of(owner_id).get(provider)
        if gone is not None:
            self._noted_ns.pop((gone.id, "used"), None)
            self._noted_ns.pop((gone.id, "failed"), None)
        if left:
            self._by_owner[owner_id] = left
        else:
            self._by_owner.pop(owner_id, None)

    def _note(self, key: OwnKey, what: Literal["used", "failed"], failure: str) -> None:
        now_ns = self._clock.monotonic_ns()
        before_ns = self._noted_ns.get((key.id, what))
        if before_ns is not None and now_ns - before_ns < NOTE_NS_MIN:
            return
        self._noted_ns[(key.id, what)] = now_ns
        task = asyncio.create_task(self._write(key, what, failure))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _write(self, key: OwnKey, what: str, failure: str) -> None:
        now_ms = self._clock.now_ms()

        def update(tx: Transaction) -> None:
            if what == "used":
                tx.execute(
                    "UPDATE provider_keys SET last_used_at_ms = ? WHERE id = ?", (now_ms, key.id)
                )
            else:
                tx.execute(
                    "UPDATE provider_keys SET last_failed_at_ms = ?, last_failure = ? WHERE id = ?",
                    (now_ms, failure, key.id),
                )

        try:
            await self._database.write(update, is_note=True)
        except Exception:
            # A note for people; no call may fail for it.
            _logger.exception("the use of a provider key could not be noted")
