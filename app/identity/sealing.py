"""Seals secrets at rest: AES-256-GCM, each under a data key of its own, wrapped by a master key.

What a secret belongs to (its table, row, owner …) is authenticated with it: moved to another row,
or with a bit flipped anywhere, it does not open. Nonces are 96 random bits (NIST SP 800-38D, 8.2.2:
safe for 2^32 messages under one key; a data key seals one, a master key one per row and rotation).
Only the wrapped data key depends on the master key, so that master keys can be changed.
"""

import base64
import hashlib
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import TurnpikeError

MASTER_KEY_BYTES = 32
NONCE_BYTES = 12
KID_LENGTH = 16
Context = tuple[str | int | None, ...]
"""What a secret belongs to; compared byte for byte, as JSON."""

_CHECK = b"turnpike"
_encode = msgspec.json.Encoder().encode


class SealBroken(TurnpikeError):
    """What was sealed does not open: altered, moved, or sealed under a key that is not here."""


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed secret. ``wrapped_key`` and ``box`` are nonce, ciphertext and tag in a row."""

    kid: str
    wrapped_key: bytes
    box: bytes


class MasterKey:
    """32 bytes that wrap data keys. ``kid`` names the key and tells nothing about it."""

    __slots__ = ("_aead", "kid")

    def __init__(self, key: bytes) -> None:
        if len(key) != MASTER_KEY_BYTES:
            raise ValueError(f"a master key has {MASTER_KEY_BYTES} bytes")
        self._aead = AESGCM(key)
        self.kid = hashlib.sha256(b"turnpike master key\0" + key).hexdigest()[:KID_LENGTH]

    def __repr__(self) -> str:
        return f"MasterKey({self.kid})"

    def wrap(self, data_key: bytes, context: Context) -> bytes:
        """A data key, sealed for ``context``."""
        return _seal(self._aead, data_key, ("data key", self.kid, *context))

    def unwrap(self, wrapped_key: bytes, context: Context) -> bytes:
        """The reverse. Raises SealBroken."""
        return _open(self._aead, wrapped_key, ("data key", self.kid, *context))

    def check_value(self) -> bytes:
        """A known text, sealed: ``is_of`` tells with it whether a key is this one."""
        return _seal(self._aead, _CHECK, ("check value", self.kid))

    def is_of(self, check_value: bytes) -> bool:
        """Whether this key made the check value."""
        try:
            return _open(self._aead, check_value, ("check value", self.kid)) == _CHECK
        except SealBroken:
            return False


class MasterKeys:
    """The master key that seals, and those that can open what was sealed before."""

    def __init__(self, current: MasterKey, *old: MasterKey) -> None:
        self.current = current
        self._by_kid = {key.kid: key for key in (*old, current)}

    def with_kid(self, kid: str) -> MasterKey | None:
        """The key of this name, if it is one of them."""
        return self._by_kid.get(kid)

    @property
    def kids(self) -> list[str]:
        """The names of all of them, the current one first."""
        return [self.current.kid, *(kid for kid in self._by_kid if kid != self.current.kid)]

    def seal(self, secret: str, context: Context) -> Sealed:
        """Seal under the current key."""
        data_key = os.urandom(MASTER_KEY_BYTES)
        return Sealed(
            kid=self.current.kid,
            wrapped_key=self.current.wrap(data_key, context),
            box=_seal(AESGCM(data_key), secret.encode(), ("secret", *context)),
        )

    def open(self, sealed: Sealed, context: Context) -> str:
        """The secret. Raises SealBroken, which holds nothing of it."""
        data_key = self._data_key(sealed, context)
        return _open(AESGCM(data_key), sealed.box, ("secret", *context)).decode()

    def vouch(self, sealed: Sealed, context: Context) -> bool:
        """Whether the data key was wrapped for this very context; costs half of opening."""
        try:
            self._data_key(sealed, context)
        except SealBroken:
            return False
        return True

    def rewrap(self, sealed: Sealed, context: Context) -> Sealed:
        """The same under the current key; the box stays as it is. Raises SealBroken."""
        data_key = self._data_key(sealed, context)
        _open(AESGCM(data_key), sealed.box, ("secret", *context))
        wrapped_key = self.current.wrap(data_key, context)
        return Sealed(kid=self.current.kid, wrapped_key=wrapped_key, box=sealed.box)

    def _data_key(self, sealed: Sealed, context: Context) -> bytes:
        master_key = self.with_kid(sealed.kid)
        if master_key is None:
            raise SealBroken("A sealed secret belongs to a master key that is not here.")
        data_key = master_key.unwrap(sealed.wrapped_key, context)
        if len(data_key) != MASTER_KEY_BYTES:
            raise _broken()
        return data_key


def new_master_key() -> str:
    """32 random bytes as base64, as ``secrets.master_key`` takes them."""
    return base64.b64encode(os.urandom(MASTER_KEY_BYTES)).decode()


def parse_master_key(text: str) -> MasterKey:
    """The reverse; the URL-safe alphabet and missing padding will do.

    Raises ValueError, whose message says what was expected and nothing of the text.
    """
    padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    try:
        key = base64.b64decode(padded, validate=True)
    except ValueError:
        raise ValueError("expected 32 bytes as base64, found something else") from None
    if len(key) != MASTER_KEY_BYTES:
        raise ValueError(f"expected 32 bytes as base64, found {len(key)} bytes")
    return MasterKey(key)


def _seal(aead: AESGCM, plain: bytes, context: Context) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + aead.encrypt(nonce, plain, _encode(context))


def _open(aead: AESGCM, sealed: bytes, context: Context) -> bytes:
    try:
        return aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _encode(context))
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce and a tag
        raise _broken() from None


def _broken() -> SealBroken:
    return SealBroken("A sealed secret does not open: it was altered, or is not where it belongs.")
