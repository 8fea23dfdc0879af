"""API keys: made, listed and revoked here, shown once and kept as a digest; and the ring that
turns a bearer string into the principal it stands for.
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Callable

import msgspec

from app.clock import Clock
from app.errors import InvalidKey, InvalidRequest, NotFound
from app.identity import key_format
from app.identity.changes import Changes
from app.identity.principal import Principal
from app.identity.users import PAGE_LENGTH_MAX, UserStore, unknown_user
from app.ids import new_key_id
from app.storage.database import Database, Row, Transaction

# The one process that writes keys forgets a principal the moment its key or user changes, and the
# ledger asks again in the transaction of every hold, so this bounds nothing but the unforeseen.
CACHE_NS_MAX = 600 * 10**9
CACHE_ENTRIES_MAX = 131_072
LAST_USED_MS_MIN = 60_000
KEY_NAME_LENGTH_MAX = 64

_SELECT = (
    "SELECT k.id, k.user_id, u.name, k.name, k.prefix, k.created_at_ms, k.revoked_at_ms,"
    " k.last_used_at_ms FROM api_keys k JOIN users u ON u.id = k.user_id"
)
_NO_SECRET = bytes(32)
_logger = logging.getLogger(__name__)


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a key after it was shown; ``prefix`` is its public part."""

    id: str
    user_id: str
    user_name: str
    name: str
    prefix: str
    created_at_ms: int
    revoked_at_ms: int | None = None
    last_used_at_ms: int | None = None


class KeyStore:
    """The api_keys table."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._changes = Changes()

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call ``watcher`` with a key's id whenever the key was revoked."""
        self._changes.watch(watcher)

    async def create(self, user_name: str, name: str) -> tuple[KeyInfo, str]:
        """Make a key for a user. The second part is the key itself: it cannot be read again.

        Raises NotFound for an unknown user, InvalidRequest for a bad name.
        """
        if not (name.strip() and name.isprintable() and len(name) <= KEY_NAME_LENGTH_MAX):
            raise InvalidRequest(
                f"A key's name has 1 to {KEY_NAME_LENGTH_MAX} printable characters.", param="name"
            )
        text, parts = key_format.new_key()
        key_id, now_ms = new_key_id(), self._clock.now_ms()

        def insert(tx: Transaction) -> KeyInfo:
            users = tx.execute("SELECT id, name FROM users WHERE name = ?", (user_name,))
            if not users:
                raise unknown_user(user_name)
            tx.execute(
                "INSERT INTO api_keys (id, user_id, name, prefix, secret_hash, created_at_ms)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (key_id, users[0][0], name, parts.prefix, key_format.digest(parts.secret), now_ms),
            )
            return KeyInfo(
                id=key_id,
                user_id=users[0][0],
                user_name=users[0][1],
                name=name,
                prefix=parts.prefix,
                created_at_ms=now_ms,
            )

        return await self._database.write(insert), text

    async def list(self, *, after: str = "", limit: int = PAGE_LENGTH_MAX) -> list[KeyInfo]:
        """Up to ``limit`` keys, revoked ones too, oldest first, from behind the id ``after``."""
        rows = await self._database.read(
            f"{_SELECT} WHERE k.id > ? ORDER BY k.id LIMIT ?",
            (after, min(limit, PAGE_LENGTH_MAX)),
        )
        return [_info(row) for row in rows]

    async def every(self) -> AsyncIterator[KeyInfo]:
        """All keys, oldest first, page by page."""
        page = await self.list()
        while page:
            for key in page:
                yield key
            page = await self.list(after=page[-1].id)

    async def revoke(self, id_or_prefix: str) -> KeyInfo:
        """End a key at once and for good. Doing it again changes nothing. Raises NotFound."""
        now_ms = self._clock.now_ms()
        which = key_format.public_part(id_or_prefix)

        def update(tx: Transaction) -> KeyInfo:
            rows = tx.execute(f"{_SELECT} WHERE k.id = ? OR k.prefix = ?", (which, which))
            if not rows:
                raise NotFound("There is no such key; `turnpike keys list` shows them.")
            found = _info(rows[0])
            if found.revoked_at_ms is not None:
                return found
            tx.execute("UPDATE api_keys SET revoked_at_ms = ? WHERE id = ?", (now_ms, found.id))
            return msgspec.structs.replace(found, revoked_at_ms=now_ms)

        return await self._changes.follow(self._write(update), lambda key: key.id)

    async def touch(self, key_id: str) -> None:
        """Note that a key was used just now."""
        now_ms = self._clock.now_ms()

        def update(tx: Transaction) -> None:
            tx.execute("UPDATE api_keys SET last_used_at_ms = ? WHERE id = ?", (now_ms, key_id))

        await self._database.write(update, is_note=True)

    async def _write(self, unit: Callable[[Transaction], KeyInfo]) -> KeyInfo:
        return await self._database.write(unit)


class _Remembered(msgspec.Struct, gc=False):
    """A principal, until when it is remembered, and from when on a use of it is noted again."""

    principal: Principal
    until_ns: int
    note_ns: int


class KeyRing:
    """Bearer strings → principals.

    A principal is remembered under the SHA-256 of the whole bearer string, never under a part of
    it, for at most ten minutes. It is forgotten at once when its key or user changes. Only good
    keys are remembered, so strangers cannot fill the memory.
    """

    def __init__(self, database: Database, keys: KeyStore, users: UserStore, clock: Clock) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock
        self._cache: dict[bytes, _Remembered] = {}
        self._generation = 0
        self._touching: dict[str, asyncio.Task[None]] = {}
        keys.watch(lambda key_id: self.invalidate(key_id=key_id))
        users.watch(lambda user_id: self.invalidate(user_id=user_id))

    def cached(self, bearer: str) -> Principal | None:
        """The principal, if it is remembered. No I/O; a few microseconds at most."""
        if len(bearer) != key_format.KEY_LENGTH:
            return None
        entry = self._cache.get(_digest(bearer))
        now_ns = self._clock.monotonic_ns()
        if entry is None or now_ns >= entry.until_ns:
            return None
        if now_ns >= entry.note_ns:
            entry.note_ns = now_ns + LAST_USED_MS_MIN * 1_000_000
            self._note_use(entry.principal.key_id, None)
        return entry.principal

    async def authenticate(self, bearer: str) -> Principal:
        """The principal of a good key. Raises InvalidKey, whose message never holds the key."""
        parts = key_format.parse_key(bearer)
        if parts is None:
            raise _malformed(bearer)
        generation = self._generation
        rows = await self._database.read(
            "SELECT k.secret_hash, k.id, k.revoked_at_ms, k.last_used_at_ms,"
            " u.id, u.name, u.role"
            " FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.prefix = ?",
            (parts.prefix,),
        )
        # An unknown prefix costs one comparison too, and gets the answer of a wrong secret.
        expected = rows[0][0] if rows else _NO_SECRET
        if not hmac.compare_digest(key_format.digest(parts.secret), expected) or not rows:
            raise InvalidKey(
                "This API key is not known here. Use a key of this server: its owner makes one"
                " with `turnpike keys create --user NAME`."
            )
        _, key_id, revoked_at_ms, last_used_at_ms, user_id, user_name, role = rows[0]
        if revoked_at_ms is not None:
            raise InvalidKey(
                "This API key was revoked. The owner of this server makes a new one with"
                " `turnpike keys create --user NAME`."
            )
        principal = Principal(
            user_id=user_id,
            user_name=user_name,
            key_id=key_id,
            owner=role == "owner",
        )
        self._remember(bearer, principal, generation)
        self._note_use(key_id, last_used_at_ms)
        return principal

    def invalidate(self, *, key_id: str | None = None, user_id: str | None = None) -> None:
        """Forget the principals of a key or of a user; all of them when neither is named."""
        self._generation += 1
        if key_id is None and user_id is None:
            self._cache.clear()
            return
        for bearer_digest, remembered in list(self._cache.items()):
            principal = remembered.principal
            if principal.key_id == key_id or principal.user_id == user_id:
                del self._cache[bearer_digest]

    async def close(self) -> None:
        """Wait for the notes of last use that are being written."""
        await asyncio.gather(*self._touching.values())

    def _remember(self, bearer: str, principal: Principal, generation: int) -> None:
        # A change that was committed while the row was being read makes this principal stale.
        if generation != self._generation:
            return
        key = _digest(bearer)
        self._cache.pop(key, None)
        if len(self._cache) >= CACHE_ENTRIES_MAX:
            del self._cache[next(iter(self._cache))]
        now_ns = self._clock.monotonic_ns()
        self._cache[key] = _Remembered(
            principal, now_ns + CACHE_NS_MAX, now_ns + LAST_USED_MS_MIN * 1_000_000
        )

    def _note_use(self, key_id: str, last_used_at_ms: int | None) -> None:
        """At most once a minute per key, behind the caller's back."""
        now_ms = self._clock.now_ms()
        recent = last_used_at_ms is not None and abs(now_ms - last_used_at_ms) < LAST_USED_MS_MIN
        if recent or key_id in self._touching:
            return
        self._touching[key_id] = asyncio.create_task(self._touch(key_id))

    async def _touch(self, key_id: str) -> None:
        try:
            await self._keys.touch(key_id)
        except Exception:
            # A note for people; no call may fail for it.
            _logger.exception("the last use of a key could not be noted")
        finally:
            del self._touching[key_id]


def _digest(bearer: str) -> bytes:
    return hashlib.sha256(bearer.encode("utf-8", "surrogatepass")).digest()


def _malformed(bearer: str) -> InvalidKey:
    if not bearer:
        return InvalidKey("No API key was given. Send it as `Authorization: Bearer tp_...`.")
    if len(bearer) == key_format.KEY_LENGTH and bearer.startswith("tp_"):
        return InvalidKey(
            "The API key has a mistake in it: its check characters do not fit. Copy it again."
        )
    return InvalidKey(
        "This is not an API key of this server: they start with tp_ and have"
        f" {key_format.KEY_LENGTH} characters. Copy it again, without spaces or quotes."
    )


def _info(row: Row) -> KeyInfo:
    key_id, user_id, user_name, name, prefix, created_at_ms, revoked_at_ms, last_used_at_ms = row
    return KeyInfo(
        id=key_id,
        user_id=user_id,
        user_name=user_name,
        name=name,
        prefix=prefix,
        created_at_ms=created_at_ms,
        revoked_at_ms=revoked_at_ms,
        last_used_at_ms=last_used_at_ms,
    )
