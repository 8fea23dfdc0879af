"""``multipart/form-data`` bodies (RFC 7578), as uploads to a provider are sent."""

import secrets
from collections.abc import Sequence

from plugins.tasks import Media

Field = tuple[str, str | Media]
_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def encode_form(fields: Sequence[Field]) -> tuple[bytes, str]:
    """The body and its content type. A ``Media`` must have its bytes; it becomes a file.

    The boundary is random, so nobody can send a file that contains it.
    """
    boundary = f"turnpike-{secrets.token_hex(16)}"
    parts: list[bytes] = []
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
        if isinstance(value, Media):
            kind = value.media_type if _is_plain(value.media_type) else "application/octet-stream"
            head += f'; filename="{_quoted(value.name or "file")}"\r\nContent-Type: {kind}'
            content = value.data or b""
        else:
            content = value.encode()
        parts += [head.encode(), b"\r\n\r\n", content, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _quoted(text: str) -> str:
    """As browsers escape names of fields and files (WHATWG HTML, "multipart form data")."""
    return text.translate(_ESCAPES)


def _is_plain(media_type: str) -> bool:
    return bool(media_type) and media_type.isascii() and media_type.isprintable()
