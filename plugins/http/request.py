"""Requests as bytes. Nothing that a caller or a provider wrote can end a line of the head."""

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from plugins.contract import AdapterError, FailureKind
from plugins.http.pool import Pool

_HEADERS = re.compile(r"(?:[!#$%&'*+.^_`|~0-9a-z-]+: [\t\x20-\x7e]*\r\n)*")
_METHOD = re.compile(r"[A-Z]{3,16}")
# RFC 3986: what a path and a query may hold unquoted. "%" stays as it is: it is taken as quoted.
_TARGET_SAFE = "/?:@!$&'()*+,;=-._~%[]|"
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "trailer"})


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``target`` is a path (with its query) that is put behind the client's base URL,
    or a whole URL on one of its hosts: keys must go nowhere else.

    ``headers`` come on top of the client's own, and win over them; names are in lower case. Those
    that frame the message (``content-length`` …) are the client's business. Methods whose answer
    has no body by definition (HEAD, CONNECT) are not known.
    """

    target: str
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Route:
    """Where requests of one method and target go, with the part of the head that they share."""

    __slots__ = ("_defaults", "_head", "_line", "_ours", "pool")

    def __init__(self, pool: Pool, method: str, target: str, defaults: Mapping[str, str]) -> None:
        """``target`` begins with a slash. Raises AdapterError (PROTOCOL) for one that cannot be
        written.
        """
        if not _METHOD.fullmatch(method):
            raise _unwritable(f"method {method!r}")
        path = checked_target(target)
        defaults = {"host": pool.origin.netloc, **defaults}
        if pool.proxy is not None and pool.origin.scheme == "http":
            path = f"http://{pool.origin.netloc}{path}"
            if pool.proxy.authorization is not None:
                defaults["proxy-authorization"] = pool.proxy.authorization
        self.pool = pool
        self._line = f"{method} {path} HTTP/1.1\r\n"
        self._defaults = defaults
        self._ours = _FRAMING | set(defaults)
        self._head = self._line + lines(defaults)

    def encode(self, request: HttpRequest) -> bytes:
        """The request's bytes. Raises AdapterError (BAD_REQUEST) for headers that cannot be sent:
        the one value in them that people type is a key."""
        head = self._head
        ours = self._ours
        extra = ""
        for name, value in request.headers:
            if name in ours:
                head = self._without(request.headers)
            extra += f"{name}: {value}\r\n"
        if not _HEADERS.fullmatch(extra) or extra.count("\r\n") != len(request.headers):
            raise AdapterError(
                FailureKind.BAD_REQUEST,
                "a header of the request holds characters that HTTP does not allow",
                detail=f"one of {[name for name, _ in request.headers]}"[:200],
            )
        body = request.body
        if body or request.method != "GET":
            extra += f"content-length: {len(body)}\r\n"
        return f"{head}{extra}\r\n".encode("ascii") + body

    def _without(self, headers: tuple[tuple[str, str], ...]) -> str:
        """The shared part, without what the request says itself."""
        names = {name for name, _ in headers}
        if framing := names & _FRAMING:
            raise _unwritable(f"header {sorted(framing)[0]}")
        return self._line + lines({k: v for k, v in self._defaults.items() if k not in names})


def lines(headers: Mapping[str, str]) -> str:
    """Headers as text. Raises ValueError, with the header's name, for one that cannot be sent."""
    text = ""
    for name, value in headers.items():
        line = f"{name.lower()}: {value}\r\n"
        if not _HEADERS.fullmatch(line) or line.count("\r\n") != 1:
            raise ValueError(f"header {name!r} holds characters that HTTP does not allow")
        text += line
    return text


def checked_target(target: str) -> str:
    """A target without its fragment, spaces and letters of other scripts quoted. Raises
    AdapterError (PROTOCOL) for control characters."""
    target = target.partition("#")[0]
    if not all(char.isprintable() or ord(char) > 0xA0 for char in target):
        raise _unwritable("control characters")
    return quote(target, safe=_TARGET_SAFE, errors="replace")


def _unwritable(what: str) -> AdapterError:
    return AdapterError(
        FailureKind.PROTOCOL, "the request cannot be written as HTTP", detail=what[:200]
    )
