"""How a key is written: ``tp_`` + public id + ``_`` + secret + check, all base62.

The prefix lets secret scanners find a leaked key, the check (CRC-32 of what stands before it)
lets a mistyped one be refused without looking anything up. The secret has 30 characters of 62,
which is 178 bits; a fast hash is enough for random secrets of that size.
"""

import hashlib
import re
import secrets
import string
import zlib
from typing import NamedTuple

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
PREFIX_LENGTH = 10
SECRET_LENGTH = 30
CHECK_LENGTH = 6  # 62^6 > 2^32
KEY_LENGTH = len("tp_") + PREFIX_LENGTH + len("_") + SECRET_LENGTH + CHECK_LENGTH

_SHAPE = re.compile(
    rf"tp_([0-9A-Za-z]{{{PREFIX_LENGTH}}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})"
    rf"([0-9A-Za-z]{{{CHECK_LENGTH}}})"
)


class KeyParts(NamedTuple):
    """What a well-formed key is made of; ``prefix`` is public."""

    prefix: str
    secret: str


def new_key() -> tuple[str, KeyParts]:
    """A fresh key as its user sees it, and its parts."""
    parts = KeyParts(_random(PREFIX_LENGTH), _random(SECRET_LENGTH))
    body = f"tp_{parts.prefix}_{parts.secret}"
    return body + _check(body), parts


def parse_key(text: str) -> KeyParts | None:
    """The parts of a key; None when it is malformed or its check does not fit."""
    match = _SHAPE.fullmatch(text)
    if match is None or _check(text[:-CHECK_LENGTH]) != match[3]:
        return None
    return KeyParts(match[1], match[2])


def public_part(text: str) -> str:
    """What may be shown and logged of something that names a key: an id, a prefix, or a key."""
    return text.removeprefix("tp_")[:PREFIX_LENGTH] if text.startswith("tp_") else text


def digest(secret: str) -> bytes:
    """What is stored of a secret: SHA-256, 32 bytes."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _check(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    characters = []
    for _ in range(CHECK_LENGTH):
        number, remainder = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[remainder])
    return "".join(reversed(characters))
