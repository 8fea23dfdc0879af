"""Whom to trust: TLS 1.2 or later, certificates always checked, the system's authorities.

Where Python finds none of the system's (a frozen binary on another distribution), certifi's are
used. An authority of one's own comes on top.
"""

import os
import ssl
from functools import lru_cache
from pathlib import Path

import certifi


@lru_cache(maxsize=64)
def client_context(extra_pem: str | None = None) -> ssl.SSLContext:
    """A context for clients, shared by all that trust the same: making one reads all authorities,
    which takes tens of milliseconds.

    Raises ssl.SSLError for an ``extra_pem`` that holds no certificate.
    """
    context = ssl.create_default_context()
    if not _system_has_authorities():
        context.load_verify_locations(cafile=certifi.where())
    if extra_pem is not None:
        if not extra_pem.strip():
            raise ssl.SSLError("the file of authorities is empty")
        context.load_verify_locations(cadata=extra_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _system_has_authorities() -> bool:
    # ``openssl_`` paths may be set by SSL_CERT_FILE and SSL_CERT_DIR; None where they do not exist.
    paths = ssl.get_default_verify_paths()
    if paths.cafile or os.name == "nt":
        return True
    return bool(paths.capath) and any(Path(paths.capath).iterdir())
