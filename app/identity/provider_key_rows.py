"""The rows of the provider_keys table: what is told of them, and how they are written."""

import logging
from collections.abc import Callable

import msgspec

from app.identity.own_keys import OwnKey
from app.identity.sealing import MasterKeys, SealBroken, Sealed
from app.storage.database import Row, Transaction

ROWS_PER_WRITE = 500
SELECT_OWN = (
    "SELECT owner_id, provider, id, hint, paid_fallback, set_by, created_at_ms, kid, wrapped_key,"
    " box FROM provider_keys"
)
"""What ``own_key`` reads."""
SELECT_INFO = (
    "SELECT owner_id, provider, hint, paid_fallback, set_by, created_at_ms, last_used_at_ms,"
    " last_failed_at_ms, last_failure FROM provider_keys"
)
"""What ``key_info`` reads."""
_logger = logging.getLogger(__name__)


class ProviderKeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All that is told of a provider key. ``hint`` is the secret's end, where it is long enough.

    ``set_by`` is a user's id, or "operator"; ``last_failure`` the kind of the last failure.
    """

    owner_id: str
    provider: str
    hint: str | None
    paid_fallback: bool
    set_by: str
    created_at_ms: int
    last_used_at_ms: int | None = None
    last_failed_at_ms: int | None = None
    last_failure: str | None = None


def own_key(row: Row) -> OwnKey:
    """A row of ``SELECT_OWN``."""
    owner_id, provider, row_id, hint, paid, set_by, created_at_ms, kid, wrapped_key, box = row
    return OwnKey(
        owner_id=owner_id,
        provider=provider,
        id=row_id,
        hint=hint,
        paid_fallback=bool(paid),
        set_by=set_by,
        created_at_ms=created_at_ms,
        sealed=Sealed(kid=kid, wrapped_key=wrapped_key, box=box),
    )


def key_info(row: Row) -> ProviderKeyInfo:
    """A row of ``SELECT_INFO``."""
    owner_id, provider, hint, paid, set_by, created_at_ms, used_at_ms, failed_at_ms, failure = row
    return ProviderKeyInfo(
        owner_id=owner_id,
        provider=provider,
        hint=hint,
        paid_fallback=bool(paid),
        set_by=set_by,
        created_at_ms=created_at_ms,
        last_used_at_ms=used_at_ms,
        last_failed_at_ms=failed_at_ms,
        last_failure=failure,
    )


def insertion(key: OwnKey, masters: MasterKeys, now_ms: int) -> Callable[[Transaction], None]:
    """A write that sets a key in place of the one before."""

    def insert(tx: Transaction) -> None:
        _note_master_key(tx, masters, now_ms)
        tx.execute(
            "DELETE FROM provider_keys WHERE owner_id = ? AND provider = ?",
            (key.owner_id, key.provider),
        )
        tx.execute(
            "INSERT INTO provider_keys (owner_id, provider, id, hint, paid_fallback, set_by,"
            " created_at_ms, kid, wrapped_key, box) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key.owner_id,
                key.provider,
                key.id,
                key.hint,
                int(key.paid_fallback),
                key.set_by,
                key.created_at_ms,
                key.sealed.kid,
                key.sealed.wrapped_key,
                key.sealed.box,
            ),
        )

    return insert


def rewrapping(
    masters: MasterKeys, after: str, now_ms: int
) -> Callable[[Transaction], tuple[list[OwnKey], int, str]]:
    """A write that wraps the next rows anew: those it did, how many it could not, and behind which
    id the next write goes on ("" at the end)."""

    def rewrap(tx: Transaction) -> tuple[list[OwnKey], int, str]:
        _note_master_key(tx, masters, now_ms)
        rows = tx.execute(f"{SELECT_OWN} WHERE id > ? ORDER BY id LIMIT ?", (after, ROWS_PER_WRITE))
        done, broken = [], 0
        for row in rows:
            key = own_key(row)
            if key.sealed.kid == masters.current.kid:
                continue
            try:
                sealed = masters.rewrap(key.sealed, key.context)
            except SealBroken:
                _logger.warning("a key of %s for %s does not open", key.owner_id, key.provider)
                broken += 1
                continue
            tx.execute(
                "UPDATE provider_keys SET kid = ?, wrapped_key = ? WHERE id = ?",
                (sealed.kid, sealed.wrapped_key, key.id),
            )
            done.append(msgspec.structs.replace(key, sealed=sealed))
        return done, broken, rows[-1][2] if len(rows) == ROWS_PER_WRITE else ""

    return rewrap


def _note_master_key(tx: Transaction, masters: MasterKeys, now_ms: int) -> None:
    tx.execute(
        "INSERT INTO master_keys (kid, check_value, first_used_at_ms) VALUES (?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (masters.current.kid, masters.current.check_value(), now_ms),
    )
