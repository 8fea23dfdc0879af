"""Events → frames of a server-sent event stream, with a heartbeat, until the end or the client's
leaving (WHATWG HTML, "Server-sent events").
"""

import asyncio
from collections.abc import Callable, Sequence

from litestar.types import Receive, Send

from app.api.answer import HeaderList, start_answer
from app.errors import CallError
from app.gateway.pump import Pump
from plugins.chat import ChoiceDelta

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the frames back
]
_HEARTBEAT = b": keep-alive\n\n"
WATCH_AFTER_S = 0.25


async def stream(
    pump: Pump,
    receive: Receive,
    send: Send,
    *,
    headers: list[tuple[bytes, bytes]],
    heartbeat_s: float,
    frames: Callable[[Sequence[ChoiceDelta]], bytes],
    last_frames: Callable[[], bytes],
    error_frame: Callable[[CallError], bytes],
) -> None:
    """Send the pump's events as they come; frames that wait together go out together."""
    watcher = asyncio.create_task(_leave_with_client(pump, receive))
    try:
        head = [*STREAM_HEADERS, *headers]
        if pump.has_deltas:  # mostly: the stream is not begun before there is something to send
            await _begin(send, head, frames(await pump.take(heartbeat_s) or ()))
        else:
            await start_answer(send, 200, head)
        if (write := _writer(send)) is not None:
            pump.deliver_by(lambda deltas: write(frames(deltas)))
        while True:
            try:
                deltas = await pump.take(heartbeat_s)
            except CallError as error:
                await _write(send, error_frame(error), more=False)
                return
            if deltas is None:
                await _write(send, last_frames(), more=False)
                return
            if pump.call.client_left:
                return
            await _write(send, frames(deltas) if deltas else _HEARTBEAT, more=True)
    finally:
        watcher.cancel()
        pump.leave()


class _Wait:
    """A client that waits for its first bytes."""

    __slots__ = ("looked", "pump", "receive", "watcher")

    def __init__(self, pump: Pump, receive: Receive) -> None:
        self.pump = pump
        self.receive = receive
        self.looked = False
        self.watcher: asyncio.Task[None] | None = None


class FirstBytes:
    """All clients that wait for their first bytes, with one timer between them: most calls are
    answered sooner than it pays to watch for a client that leaves, so only those are watched that
    the timer meets for the second time.
    """

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, pump: Pump, receive: Receive) -> None:
        """Until there is something to send. Raises the CallError of a call that failed."""
        wait = _Wait(pump, receive)
        self._waits.add(wait)
        if self._timer is None:
            self._set(asyncio.get_running_loop())
        try:
            await pump.ready()
        finally:
            self._waits.discard(wait)
            if wait.watcher is not None:
                wait.watcher.cancel()

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(WATCH_AFTER_S / 2, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for wait in self._waits:
            if not wait.looked:
                wait.looked = True
            elif wait.watcher is None:
                wait.watcher = loop.create_task(_leave_with_client(wait.pump, wait.receive))
        if self._waits:
            self._set(loop)


async def _begin(send: Send, head: HeaderList, piece: bytes) -> None:
    """The head and the first frames, in one piece where that can be."""
    begin = getattr(send, "begin", None)  # of the guard's, where nothing wraps it
    if begin is None or not begin(200, head, piece):
        await start_answer(send, 200, head)
        await _write(send, piece, more=True)


def _writer(send: Send) -> Callable[[bytes], bool] | None:
    """What writes a piece of the body at once or says that it cannot; None where ``send`` is
    wrapped."""
    writer = getattr(send, "writer", None)  # of the guard's
    return None if writer is None else writer()


async def _write(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _leave_with_client(pump: Pump, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    pump.leave()
