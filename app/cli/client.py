"""The command line's way to the data: always the ``/api`` surface, over one of two transports.

Where a server works on the data directory, its ``server.json`` (0600) says where it listens and
with which token; otherwise the appliance is opened within this process and gets the same requests.
A change therefore always passes the process that holds the caches, and is seen at once.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import httpx
import msgspec

from app.cli.invocation import Invocation
from app.cli.output import show_progress
from app.cli.progress import upgrade_bar
from app.config import Config
from app.errors import AlreadyRunning, TurnpikeError
from app.storage.lock import SERVER_FILE, DataDirLock

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
WAIT_SECONDS_MAX = 10.0
REQUEST_SECONDS_MAX = 60.0


class CommandFailed(TurnpikeError):
    """A command could not do its work; the message says why."""


class RunningServer(msgspec.Struct, frozen=True):
    """What ``serve`` writes into ``server.json``."""

    pid: int
    base_url: str
    token: str


class ListPage(Protocol[T_co]):
    """A page of any list of the surface, and where the next one begins."""

    @property
    def data(self) -> Sequence[T_co]: ...

    @property
    def next_after(self) -> str | None: ...


class AdminClient:
    """Requests to the ``/api`` surface."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def send(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        body: msgspec.Struct | None = None,
        query: Mapping[str, str] | None = None,
    ) -> T:
        """One request. Raises CommandFailed with the server's own words."""
        try:
            response = await self._http.request(
                method,
                path,
                content=None if body is None else msgspec.json.encode(body),
                headers={} if body is None else {"content-type": "application/json"},
                params=query,
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(f"The server did not answer: {reason}") from error
        if not response.is_success:
            raise CommandFailed(_refusal(response))
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            raise CommandFailed(
                "The server's answer is not one that this version understands; is it another"
                f" version of Turnpike? ({error})"
            ) from error

    async def every(self, path: str, page: type[ListPage[T]]) -> list[T]:
        """All of a list, page by page. Raises CommandFailed."""
        found: list[T] = []
        after: str | None = ""
        while after is not None:
            part = await self.send("GET", path, page, query={"after": after})
            found += part.data
            after = part.next_after
        return found


def ask(invocation: Invocation, work: Callable[[AdminClient], Awaitable[T]]) -> T:
    """Run ``work`` with a client, and give its result."""

    async def run() -> T:
        async with connect(invocation.config()) as client:
            return await work(client)

    return asyncio.run(run())


@asynccontextmanager
async def connect(config: Config) -> AsyncIterator[AdminClient]:
    """A client of the server on the data directory, or of the appliance opened here.

    A server that is just starting or stopping holds the directory and does not answer: this waits
    for it, then raises CommandFailed.
    """
    began = time.monotonic()
    said = False
    async with AsyncExitStack() as stack:
        while (http := await _try(config, stack)) is None:
            waited = time.monotonic() - began
            if waited > 1 and not said:
                said = True
                show_progress("Another Turnpike process holds the data directory; waiting for it.")
            if waited > WAIT_SECONDS_MAX:
                raise CommandFailed(
                    f"A Turnpike process holds {config.data_dir()} and does not answer. It may be"
                    " starting or stopping: try again in a moment."
                )
            await asyncio.sleep(0.1)
        yield AdminClient(http)


async def _try(config: Config, stack: AsyncExitStack) -> httpx.AsyncClient | None:
    """Whichever transport works now; None when neither does yet."""
    server = server_of(config.data_dir())
    if server is not None:
        http = httpx.AsyncClient(
            base_url=server.base_url,
            headers={"authorization": f"Bearer {server.token}"},
            timeout=REQUEST_SECONDS_MAX,
            trust_env=False,  # a proxy has no business between a command and its own machine
        )
        try:
            (await http.get("/livez")).raise_for_status()
        except httpx.HTTPError:
            await http.aclose()
            return None
        stack.push_async_callback(http.aclose)
        return http

    from app.boot import open_appliance  # the whole application: only where it is needed

    try:
        appliance = await stack.enter_async_context(
            open_appliance(config, serving=False, watch=upgrade_bar)
        )
    except AlreadyRunning:
        return None
    return await stack.enter_async_context(
        httpx.AsyncClient(
            # Both sides speak ASGI, each with type names of its own for the same messages.
            transport=httpx.ASGITransport(cast(Any, appliance.asgi)),
            base_url="http://127.0.0.1",
            headers={"authorization": f"Bearer {appliance.admin_token}"},
        )
    )


def server_of(data_dir: Path) -> RunningServer | None:
    """The server that works on a data directory; None where there is none, or none yet.

    The file alone proves nothing (a killed server leaves it), so the lock is asked too.
    """
    path = data_dir / SERVER_FILE
    try:
        server = msgspec.json.decode(path.read_bytes(), type=RunningServer)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from error
    try:
        with DataDirLock(data_dir):
            return None
    except AlreadyRunning:
        return server


def _refusal(response: httpx.Response) -> str:
    """The message of an OpenAI-shaped error."""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"The server answered with status {response.status_code}."
    return str(message)
