"""Whether the address to listen on is free, or has our own server on it."""

import errno
import socket
import sys
from urllib.parse import urlsplit

from app.config import Server
from app.doctor.finding import Finding, Teller
from app.doctor.server import Presence

_tell = Teller("ports")
_PRIVILEGED = 1024


def check_ports(server: Server, presence: Presence) -> list[Finding]:
    """Tries the address for a moment, without listening there."""
    where = f"{server.host}:{server.port}"
    if server.port == 0:
        return [_tell.ok("port.any", "any free port will be taken (port = 0)")]
    if presence.server is not None and urlsplit(presence.server.base_url).port == server.port:
        return [_tell.ok("port.ours", f"{where} is our own server's")]
    error = _try(server)
    if error is None:
        return [_tell.ok("port.free", f"{where} is free")]
    if error.errno == errno.EADDRINUSE:
        fix = (
            f"End what listens there (ss -ltnp 'sport = :{server.port}' shows it), or choose"
            " another with `port` under [server]"
        )
        return [_tell.problem("port.taken", f"another program listens on {where}", fix)]
    if isinstance(error, PermissionError) and server.port < _PRIVILEGED:
        fix = f"Choose a port from {_PRIVILEGED} on with `port` under [server]"
        text = f"this account may not listen on {where}"
        return [_tell.problem("port.forbidden", text, fix)]
    text = f"{server.host} is no address of this machine: {error.strerror or error}"
    fix = 'Correct `host` under [server]: "127.0.0.1" for this machine alone, "0.0.0.0" for all'
    return [_tell.problem("port.no_address", text, fix)]


def _try(server: Server) -> OSError | None:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        try:
            if sys.platform != "win32":
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((server.host, server.port))
        except OSError as error:
            return error
    return None
