"""Events → frames of a server-sent event stream, with a heartbeat, until the end or the client's
leaving (WHATWG HTML, "Server-sent events").
"""

import asyncio
from collections.abc import Callable, Sequence

from litestar.types import Receive, Send

from app.api.answer import start_answer
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
        await start_answer(send, 200, [*STREAM_HEADERS, *headers])
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


async def first_bytes(pump: Pump, receive: Receive) -> None:
    """Wait until there is something to send, and notice a client that leaves before that.

    Most calls are answered sooner than it pays to watch for. Raises the CallError of a call that
    failed.
    """
    loop = asyncio.get_running_loop()
    watchers: list[asyncio.Task[None]] = []
    alarm = loop.call_later(
        WATCH_AFTER_S,
        lambda: watchers.append(loop.create_task(_leave_with_client(pump, receive))),
    )
    try:
        await pump.ready()
    finally:
        alarm.cancel()
        for watcher in watchers:
            watcher.cancel()


async def _write(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _leave_with_client(pump: Pump, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    pump.leave()
