"""URLs that callers name, read by the one parser that both the check and the request use.

Parsers that differ on one character are how such checks are passed (vLLM's CVE-2026-24779), so what
two could read in two ways is refused: backslashes, spaces, control characters, user names, hosts
that are numbers in any form but four plain decimals.
"""

import ipaddress
import re
from base64 import b64decode
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from plugins.http.proxy import Origin, default_port

URL_LENGTH_MAX = 8192

_URL = re.compile(r"(https?)://([^/?#]+)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^:@\[\]]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_NAME = re.compile(
    r"(?=.{1,253}\.?$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_-]{1,63}\.?"
)
# WHATWG URL, "ends in a number": such a host is an IPv4 address in some form, or nothing.
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\.?")
_DATA = re.compile(r"data:([^,]*?)(;\s*base64)?,", re.IGNORECASE)


class BadUrl(Exception):
    """The message says to the caller what is wrong."""


class Target(NamedTuple):
    """Where a URL leads, and what to ask for there."""

    origin: Origin
    target: str
    is_address: bool


def read_url(url: str) -> Target:
    """An http or https URL. Raises BadUrl."""
    if len(url) > URL_LENGTH_MAX:
        raise BadUrl("it is too long")
    if "\\" in url or any(char.isspace() or not char.isprintable() for char in url):
        raise BadUrl("it holds characters that a URL cannot hold")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise BadUrl("only http://, https:// and data: URLs are read")
    scheme = parts[1].lower()
    if "@" in parts[2]:
        raise BadUrl("it holds a user name or password")
    authority = _AUTHORITY.fullmatch(parts[2])
    if authority is None:
        raise BadUrl("its host is not valid")
    host, is_address = _host(authority[1])
    port = int(authority[2]) if authority[2] else default_port(scheme)
    if not 0 < port < 65536:
        raise BadUrl("its port is not valid")
    target = quote((parts[3] or "/") + (parts[4] or ""), safe="/?:@!$&'()*+,;=-._~%[]|")
    return Target(Origin(scheme, host, port), target, is_address)


def _host(text: str) -> tuple[str, bool]:
    """A host as it is asked for, and whether it is an address."""
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1])), True
        except ValueError:
            raise BadUrl("its host is not valid") from None
    try:
        # Also turns digits of other scripts into plain ones, before anything looks at them.
        host = text.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise BadUrl("its host is not valid") from None
    if not _NAME.fullmatch(host):
        raise BadUrl("its host is not valid")
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host.removesuffix("."))), True
        except ValueError:
            raise BadUrl("its host is not valid") from None
    return host, False


def is_data(url: str) -> bool:
    """Whether the URL holds what it names (RFC 2397)."""
    return url[:5].lower() == "data:"


def read_data(url: str, bytes_max: int) -> tuple[str, bytes]:
    """Media type, as it stands there, and bytes of a ``data:`` URL. Raises BadUrl."""
    head = _DATA.match(url[:512])
    if head is None:
        raise BadUrl("it is no valid data: URL")
    payload = url[head.end() :]
    # Each byte takes at most three characters, and four thirds of one as base64.
    if len(payload) > (bytes_max + 2) // 3 * 4 * (1 if head[2] else 3):
        raise BadUrl(f"it holds more than {bytes_max >> 20} MiB")
    try:
        data = unquote_to_bytes(payload) if "%" in payload or not head[2] else payload.encode()
        if head[2]:
            data = b64decode(data, validate=True)
    except ValueError:
        raise BadUrl("its content is not valid") from None
    if len(data) > bytes_max:
        raise BadUrl(f"it holds more than {bytes_max >> 20} MiB")
    return head[1].strip() or "text/plain", data
