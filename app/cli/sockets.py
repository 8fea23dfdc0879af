"""The sockets to serve on: bound here, given by a supervisor, or left by the program before.

All of them come the way that ``sd_listen_fds(3)`` says: ``$LISTEN_FDS`` descriptors from number 3
on, meant for the process ``$LISTEN_PID``. Those that listen are listened on. Those that are
connected are clients' connections, kept open while one program took another's place.
"""

import os
import socket
import stat
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass, field

from app.cli.notify import is_meant
from app.config import Server
from app.errors import ConfigError

FIRST_FD = 3
# Set by a program for the one that takes its place: who had made the socket that listens.
HANDED_OVER = "TURNPIKE_HANDED_OVER"
BOUND, GIVEN = "bound", "given"
_LOCAL = getattr(socket, "AF_UNIX", None)  # not on Windows
# As many connections as the kernel is willing to let wait: during a restart it takes them all in.
# It cuts this to net.core.somaxconn.
BACKLOG = 65_535


@dataclass
class Inherited:
    """What this process was started with."""

    listening: list[socket.socket] = field(default_factory=list)
    connected: list[socket.socket] = field(default_factory=list)
    handed_over: str | None = None  # BOUND or GIVEN


@dataclass
class Listening:
    """What is listened on, and whose choice that was."""

    sockets: list[socket.socket]
    origin: str  # BOUND or GIVEN


def inherited(environ: MutableMapping[str, str]) -> Inherited:
    """Take the sockets that the environment tells of, and the variables out of it.

    Raises ConfigError for descriptors that are no sockets.
    """
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", None)
    environ.pop("LISTEN_FDNAMES", None)
    found = Inherited(handed_over=environ.pop(HANDED_OVER, None))
    if sys.platform == "win32" or not count.isdigit() or pid is None or not is_meant(pid):
        return found
    for fd in range(FIRST_FD, FIRST_FD + int(count)):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        except OSError:
            is_socket = False
        if not is_socket:
            raise ConfigError(
                f"LISTEN_FDS={count} says that descriptor {fd} is a socket to listen on, which it"
                " is not. Let a supervisor set this variable (turnpike.socket does), or unset it."
            )
        os.set_inheritable(fd, False)  # engines get none of them
        each = socket.socket(fileno=fd)
        each.setblocking(False)
        if each.type != socket.SOCK_STREAM:
            raise ConfigError(
                f"descriptor {fd} of LISTEN_FDS is no stream socket: name it with ListenStream= in"
                " turnpike.socket."
            )
        listens = each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        (found.listening if listens else found.connected).append(each)
    return found


def listen(server: Server, before: Inherited) -> Listening:
    """The sockets to serve on: the inherited ones, or one bound to the configured address.

    A supervisor's sockets are the truth, whatever the file says. One that this program's forerunner
    had bound stays only while the file still says the same. Raises ConfigError.
    """
    ours = before.handed_over == BOUND
    if before.listening and not (ours and moved(server, before.listening[0])):
        if not any(each.family != _LOCAL for each in before.listening):
            raise ConfigError(
                "None of the inherited sockets is a TCP socket, which commands need to reach the"
                " server: add ListenStream=127.0.0.1:8000 to turnpike.socket."
            )
        return Listening(before.listening, BOUND if ours else GIVEN)
    for each in before.listening:
        each.close()
    return Listening([bind(server)], BOUND)


def moved(server: Server, listening: socket.socket) -> bool:
    """Whether the configuration asks for another address than the one that is listened on."""
    host, port = listening.getsockname()[:2]
    if server.port not in {0, port}:
        return True
    try:
        asked = socket.getaddrinfo(server.host or "0.0.0.0", port, type=socket.SOCK_STREAM)
    except OSError:
        return True
    return host not in {each[4][0] for each in asked}


def bind(server: Server) -> socket.socket:
    """A socket bound to the configured address. Raises ConfigError that says what to change."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((server.host, server.port))
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"server.port: cannot listen on {server.host}:{server.port}:"
            f" {error.strerror or error}. Choose another with `port` under [server]; 0 takes a"
            " free one."
        ) from error
    return listening


def url_of(sockets: list[socket.socket]) -> str:
    """The base URL that a client on this machine uses."""
    tcp = next(each for each in sockets if each.family != _LOCAL)
    host, port = tcp.getsockname()[:2]
    if host in {"0.0.0.0", "::", ""}:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
