"""Proxies that the environment names: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY.

Lower-case names win, as with curl. Only ``http://`` proxies are known. This machine and addresses
of private networks are always reached directly.
"""

import ipaddress
import os
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit


class Origin(NamedTuple):
    """Where a URL leads; ``host`` in lower case, without the brackets of IPv6."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default_port(self.scheme) else f"{host}:{self.port}"


class Proxy(NamedTuple):
    """An HTTP proxy; ``authorization`` is the value of its header."""

    host: str
    port: int
    authorization: str | None

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


def default_port(scheme: str) -> int:
    """The port that a URL need not say."""
    return 443 if scheme == "https" else 80


def is_near(host: str) -> bool:
    """Whether a host is this machine, or is named by an address of a private network."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def proxy_for(origin: Origin, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy to use, None for a direct connection. Raises ValueError, with the variable's name
    first, for one that cannot be used.
    """
    variables = os.environ if environment is None else environment
    if is_near(origin.host) or _is_excepted(origin, _value(variables, "no_proxy")[1]):
        return None
    for name in (f"{origin.scheme}_proxy", "all_proxy"):
        given, value = _value(variables, name)
        if value:
            return _read(given, value)
    return None


def _value(variables: Mapping[str, str], name: str) -> tuple[str, str]:
    for each in (name, name.upper()):
        # A CGI program's HTTP_PROXY is the client's ``Proxy`` header (CVE-2016-5385).
        if each == "HTTP_PROXY" and "REQUEST_METHOD" in variables:
            continue
        if value := variables.get(each, "").strip():
            return each, value
    return name, ""


def _read(name: str, value: str) -> Proxy:
    parts = urlsplit(value if "://" in value else f"http://{value}")
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port:
        # The value is not shown: it may hold a password.
        raise ValueError(f"{name}: expected an http:// proxy, host and port")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode()}"
    return Proxy(parts.hostname, port, authorization)


def _is_excepted(origin: Origin, no_proxy: str) -> bool:
    """``*``, or host names (with those below them), addresses and networks, each with a port or
    without."""
    for entry in no_proxy.replace(",", " ").split():
        if entry == "*" or _matches(origin, entry.lower()):
            return True
    return False


def _matches(origin: Origin, entry: str) -> bool:
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        try:
            return ipaddress.ip_address(origin.host) in network
        except ValueError:
            return False
    name, colon, port = entry.rpartition(":")
    if colon and port.isdigit():
        if int(port) != origin.port:
            return False
        entry = name.strip("[]")
    entry = entry.removeprefix("*").lstrip(".")
    return bool(entry) and (origin.host == entry or origin.host.endswith(f".{entry}"))
