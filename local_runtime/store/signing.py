"""Ed25519 keys of those who make bundles: private ones in files, public ones as 64 hex digits."""

import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from local_runtime.store.blobs import StoreError

PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")


def make_key(path: Path) -> str:
    """Write a new private key (0600); its public key is returned. An existing file stays.

    Raises StoreError, OSError.
    """
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise StoreError(f"{path} is there already; a key that is lost cannot be made again") from (
            error
        )
    with os.fdopen(fd, "wb") as file:
        file.write(text)
    return public_key(key)


def read_key(path: Path) -> Ed25519PrivateKey:
    """Raises StoreError."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise StoreError(
            f"there is no key {path}; `turnpike models bundle --make-key` makes one, --key names"
            " another, and --unsigned does without"
        ) from error
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} holds no private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"{path} holds a key of another kind than Ed25519")
    return key


def sign(key: Ed25519PrivateKey, data: bytes) -> tuple[str, str]:
    """Public key and signature, in hex."""
    return public_key(key), key.sign(data).hex()


def is_signed(public_key: str, signature: str, data: bytes) -> bool:
    """Whether the owner of the key signed just that."""
    if not PUBLIC_KEY.fullmatch(public_key) or not re.fullmatch(r"[0-9a-f]{128}", signature):
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_key(key: Ed25519PrivateKey) -> str:
    """What others know it by: 64 hex digits."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
