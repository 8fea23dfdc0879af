"""A whole answer in two ASGI messages."""

from collections.abc import Iterable
from typing import Any

from litestar.types import Send

HeaderList = list[tuple[bytes, bytes]]
JSON = b"application/json"


async def send_answer(
    send: Send,
    status: int,
    body: bytes,
    *,
    content_type: bytes = JSON,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a response with a body of known length; nothing may have been sent before."""
    length = str(len(body)).encode()
    described = [(b"content-type", content_type), (b"content-length", length), *headers]
    at_once = getattr(send, "at_once", None)  # of the guard's, where nothing wraps it
    if at_once is not None and at_once(status, described, body):
        return
    await start_answer(send, status, described)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def start_answer(send: Send, status: int, headers: HeaderList) -> None:
    """Send the status line and headers."""
    start: Any = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
