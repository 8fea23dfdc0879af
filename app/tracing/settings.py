"""``[tracing]`` of the configuration, checked, with its secrets read."""

import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from app.config import Config, secret
from app.errors import ConfigError
from plugins.http.proxy import is_near
from plugins.http.tls import client_context

_PATH = "/v1/traces"
_PORT_MAX = 65_535
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
# What the messages need, or what would let the body be taken for something else.
_NOT_OURS = frozenset({"content-type", "content-length", "transfer-encoding", "host", "connection"})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans go and how many. ``url`` takes the posts; ``shown`` is what of it may be told.

    ``ca_pem`` are authorities to trust beside the system's, ``through_proxy`` whether one that the
    environment names may be used.
    """

    url: str
    shown: str
    headers: dict[str, str]
    service_name: str
    sample_ratio: float
    trust_callers: bool
    timeout_s: float
    flush_s: float
    queue_spans_max: int
    ca_pem: str | None = None
    through_proxy: bool = False

    def __repr__(self) -> str:
        return f"Settings({self.shown})"  # no header, no password


def settings_of(config: Config) -> Settings | None:
    """None where nothing is to be traced. Raises ConfigError, and names the setting."""
    tracing = config.tracing
    if tracing.endpoint is None:
        return None
    url, shown = _address(tracing.endpoint)
    return Settings(
        url=url,
        shown=shown,
        headers=_headers(tracing.headers),
        service_name=tracing.service_name,
        sample_ratio=tracing.sample_ratio,
        trust_callers=tracing.trust_callers,
        timeout_s=tracing.timeout_seconds,
        flush_s=tracing.flush_seconds_max,
        queue_spans_max=tracing.queue_spans_max,
        ca_pem=_authorities(tracing.ca_file),
        through_proxy=not is_near(urlsplit(url).hostname or ""),
    )


def _address(endpoint: str) -> tuple[str, str]:
    """The URL that takes spans, and what may be said of it: a collector's base address gets the
    path that the protocol has for them (opentelemetry.io, "OTLP exporter configuration")."""
    try:
        parsed = httpx.URL(endpoint)
        if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.port == 0:
            raise ConfigError("tracing.endpoint: expected http://HOST:PORT or https://HOST:PORT")
    except httpx.InvalidURL as error:
        raise ConfigError(f"tracing.endpoint: {error}") from error
    if (parsed.port or 1) > _PORT_MAX:
        raise ConfigError(f"tracing.endpoint: there is no port {parsed.port}")
    if parsed.userinfo:
        raise ConfigError(
            "tracing.endpoint: leave name and password out of it, and give a header such as"
            ' Authorization = "env:NAME" under [tracing.headers]'
        )
    if parsed.query or parsed.fragment:
        raise ConfigError("tracing.endpoint: expected a URL without what begins with ? or #")
    path = parsed.path.rstrip("/")
    url = parsed.copy_with(path=path if path.endswith(_PATH) else path + _PATH)
    return str(url), str(url)


def _headers(given: dict[str, str]) -> dict[str, str]:
    found = {}
    for name, reference in given.items():
        where = f"tracing.headers.{name}"
        if name.lower() in _NOT_OURS:
            raise ConfigError(f"{where}: this header is set by Turnpike; leave it out")
        value = secret(reference, where=where)
        if value is None or not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"{where}: what {reference} holds cannot be sent as a header")
        found[name] = value
    return found


def _authorities(ca_file: str | None) -> str | None:
    if ca_file is None:
        return None
    try:
        pem = Path(ca_file).expanduser().read_text(encoding="utf-8")
        client_context(pem)
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        raise ConfigError(f"tracing.ca_file: {ca_file}: {error}") from error
    return pem
