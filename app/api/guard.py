"""The outermost ASGI guard: every request gets its id, and a few are refused before routing.

Exactly one ``Host``, at most one ``Authorization``, bounded headers (reliability.md D7). The id is
in ``scope["state"]["call_id"]`` and on every answer as ``Inference-Id``.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.api.answer import send_answer
from app.api.connection import HEADER_BYTES_MAX, answer_at_once, begin_at_once, piece_writer
from app.api.envelope import error_body, error_headers
from app.errors import CallError, Internal, InvalidRequest
from app.ids import new_call_id

log = logging.getLogger("turnpike.api")
_STARTED = "answer_started"


class SendWithId:
    """The server's ``send``, with the request's id on every answer."""

    __slots__ = ("_answers", "_id", "_send", "_state")

    def __init__(self, send: Send, state: dict[str, Any], call_id: str, answers: list[int]) -> None:
        self._answers = answers
        self._send = send
        self._state = state
        self._id = (b"inference-id", call_id.encode())

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._state[_STARTED] = message["status"]
            self._answers[message["status"] // 100] += 1
            message["headers"] = [*message["headers"], self._id]
        await self._send(message)

    def at_once(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send a whole answer in one piece, where that can be; whether it was."""
        return self._begun(answer_at_once, status, headers, body)

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]], piece: bytes) -> bool:
        """The same for the head of a stream and its first piece."""
        return self._begun(begin_at_once, status, headers, piece)

    def writer(self) -> Callable[[bytes], bool] | None:
        """What writes a piece of a stream's body at once, where it can; None where nothing can."""
        return piece_writer(self._send)

    def _begun(
        self,
        write: Callable[[Any, int, Iterable[tuple[bytes, bytes]], bytes], bool],
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        data: bytes,
    ) -> bool:
        if _STARTED in self._state or not write(self._send, status, (*headers, self._id), data):
            return False
        self._state[_STARTED] = status
        self._answers[status // 100] += 1
        return True


class Guard:
    """Wraps the application. ``direct`` are routes, by their whole path, that the framework need
    not find: it costs a tenth of a small call, and they handle their own errors. ``answers`` is
    counted up at the first digit of each answer's status."""

    def __init__(
        self,
        app: ASGIApp,
        direct: Mapping[str, ASGIApp] | None = None,
        answers: list[int] | None = None,
    ) -> None:
        self._app = app
        self._direct = dict(direct or {})
        self._answers = no_answers() if answers is None else answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        call_id = new_call_id()
        state = scope.setdefault("state", {})
        state["call_id"] = call_id
        send_with_id = SendWithId(send, state, call_id, self._answers)
        try:
            _check_headers(scope["headers"])
        except CallError as error:
            # What comes next on this connection may be part of what was meant to be hidden.
            await send_error(send_with_id, error, call_id, close=True)
            return
        try:
            app = self._direct.get(scope["path"], self._app)
            await app(scope, receive, send_with_id)
        except CallError as error:
            failure = error
        except Exception:
            log.exception(
                "request %s: a fault of the application", call_id, extra={"call_id": call_id}
            )
            failure = Internal()
        else:
            return
        if not answer_started(scope):
            await send_error(send_with_id, failure, call_id)


def no_answers() -> list[int]:
    """Where the guard counts answers, by the first digit of their status."""
    return [0] * 6


def answer_started(scope: Scope) -> bool:
    """Whether anything was sent: then an error can no longer be."""
    return _STARTED in scope["state"]


def status_of(scope: Scope) -> int | None:
    """The status that was answered with; None where nothing was."""
    found: int | None = scope["state"].get(_STARTED)
    return found


def _check_headers(headers: Any) -> None:
    hosts = authorizations = size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"host":
            hosts += 1
        elif name == b"authorization":
            authorizations += 1
    if hosts != 1:
        raise InvalidRequest("Send exactly one Host header.", code="bad_request")
    if authorizations > 1:
        raise InvalidRequest("Send at most one Authorization header.", code="bad_request")
    if size > HEADER_BYTES_MAX:
        raise InvalidRequest("The request's headers are larger than 32 KiB.", code="bad_request")


async def send_error(send: Send, error: CallError, call_id: str, *, close: bool = False) -> None:
    """Answer with an error; nothing may have been sent before. ``close``: the connection too."""
    body, headers = error_body(error, call_id), error_headers(error)
    if close:
        headers.append((b"connection", b"close"))
    await send_answer(send, error.status, body, headers=headers)
