"""``GET /api/local/events``: what happens to this machine's models, as server-sent events."""

import asyncio
from contextlib import aclosing

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.admin.local_wire import LocalEventLine, LocalModels
from app.api.answer import start_answer
from app.api.sse import STREAM_HEADERS
from app.errors import InvalidRequest
from app.identity.principal import Principal

_HEARTBEAT = b": no news\n\n"
_encode = msgspec.json.Encoder().encode


class LocalEvents:
    """The route's handler. ``Last-Event-ID`` goes on where a broken connection left off; 0 gives
    all that is still known.
    """

    def __init__(self, models: LocalModels) -> None:
        self._models = models

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, _principal: Principal
    ) -> None:
        after = _last_event_id(scope)
        gone = asyncio.create_task(_until_gone(receive))
        try:
            async with aclosing(self._models.events(after)) as events:
                await start_answer(send, 200, STREAM_HEADERS)
                async for event in events:
                    if gone.done():
                        return
                    frame = _HEARTBEAT if event is None else _frame(event)
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()


def _frame(event: LocalEventLine) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.event.encode(), _encode(event))


def _last_event_id(scope: HTTPScope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"last-event-id":
            if not value.isdigit() or len(value) > 18:
                raise InvalidRequest(
                    "Last-Event-ID is the id of an event of this server, a whole number.",
                    param="Last-Event-ID",
                )
            return int(value)
    return None


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
