"""The server that works on the data directory, if one does, and what it says of itself."""

from pathlib import Path
from typing import Any

import httpx
import msgspec

from app.api.admin.local_wire import LocalModelLine, LocalModelList
from app.doctor.finding import Commands, Finding, Teller
from app.ledger.time import ClockState
from app.storage.lock import SERVER_FILE
from app.storage.lock_holder import UNKNOWN, holder_of

ANSWER_SECONDS_MAX = 5.0
_tell = Teller("server")


class RunningServer(msgspec.Struct, frozen=True):
    """What a server writes into ``server.json``."""

    pid: int
    base_url: str
    token: str


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """``holder`` is the process that has the directory's lock; ``server`` where it listens, if it
    is a server that does."""

    holder: int | None = None
    server: RunningServer | None = None


def who_is_there(data_dir: Path) -> Presence:
    """Without taking the lock, which a server that starts now would miss."""
    try:
        holder = holder_of(data_dir)
    except OSError:
        return Presence()
    if holder is None:
        return Presence()
    try:
        data = (data_dir / SERVER_FILE).read_bytes()
        return Presence(holder=holder, server=msgspec.json.decode(data, type=RunningServer))
    except (OSError, msgspec.MsgspecError):
        return Presence(holder=holder)


def check_server(presence: Presence, commands: Commands) -> list[Finding]:
    """Whether the server takes calls."""
    if presence.holder is None:
        start = commands.turnpike("serve")
        return [_tell.ok("server.stopped", f"no server runs on this data directory; {start}")]
    who = "a process" if presence.holder == UNKNOWN else f"process {presence.holder}"
    server = presence.server
    if server is None:
        return [
            _tell.warning(
                "server.silent",
                f"{who} holds the data directory and does not listen: it is starting or stopping,"
                " or a command at work",
                f"Wait a moment and ask again; if it stays so, look at it: ps -p {presence.holder}",
            )
        ]
    try:
        answer = _get(server, "/readyz")
        said: Any = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return [
            _tell.problem(
                "server.deaf",
                f"the server ({who}) does not answer on {server.base_url}:"
                f" {type(error).__name__} {error}".rstrip(),
                f"Restart it: kill {server.pid}, then {commands.turnpike('serve')}",
            )
        ]
    if answer.status_code == httpx.codes.OK:
        ready = _tell.ok("server.ready", f"{who} serves {server.base_url} and takes calls")
        return [ready, *_failed_models(server, said, commands)]
    problems = said.get("problems") if isinstance(said, dict) else None
    words = "; ".join(f"{k}: {v}" for k, v in problems.items()) if problems else answer.text[:200]
    return [
        _tell.problem(
            "server.not_ready",
            f"the server on {server.base_url} takes no calls: {words}",
            f"Restart it: kill {server.pid}, then {commands.turnpike('serve')}",
        )
    ]


def _failed_models(server: RunningServer, said: Any, commands: Commands) -> list[Finding]:
    """Models that the server has given up to load, and those whose engines got no more memory."""
    states = said.get("local_models") if isinstance(said, dict) else None
    if not states:
        return []
    found = []
    lines = {line.model: line for line in _local_models(server)}
    failed = [name for name, state in states.items() if state == "failed"]
    see = commands.turnpike("models", "ps")
    for name in failed:
        line = lines.get(name)
        why = f": {line.error}" if line is not None and line.error else ""
        load = commands.turnpike("models", "load", name)
        text = f"the server could not load {name}{why}"
        fix = f"See why: {see}; and once that is mended: {load}"
        found.append(_tell.problem("server.model_failed", text, fix))
    hungry = [line for line in lines.values() if line.out_of_memory and line.model not in failed]
    for line in hungry:
        text = f"the engine of {line.model} got no more memory {line.out_of_memory} times"
        fix = (
            "Give it a smaller context_length or parallel, or more with process_bytes_max;"
            f" the log has each time, and {see} the memory that models hold"
        )
        found.append(_tell.warning("server.model_out_of_memory", text, fix))
    return found


def _local_models(server: RunningServer) -> list[LocalModelLine]:
    """What the server says of its models; nothing where it does not."""
    try:
        answer = _get(server, "/api/local/models")
        return msgspec.json.decode(answer.content, type=LocalModelList).data
    except (httpx.HTTPError, msgspec.MsgspecError):
        return []


def clock_of(presence: Presence) -> ClockState | None:
    """The running server's idea of the time; None where it cannot be had."""
    if presence.server is None:
        return None
    try:
        answer = _get(presence.server, "/api/clock")
        return msgspec.json.decode(answer.content, type=ClockState)
    except (httpx.HTTPError, msgspec.MsgspecError):
        return None


def _get(server: RunningServer, path: str) -> httpx.Response:
    return httpx.get(
        server.base_url + path,
        headers={"authorization": f"Bearer {server.token}"},
        timeout=ANSWER_SECONDS_MAX,
        trust_env=False,  # a proxy has no business between a command and its own machine
    )
