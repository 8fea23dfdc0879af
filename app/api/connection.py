"""What is bounded before a request exists: uvicorn's parser with limits of ours.

uvicorn waits for headers without end and takes them at any size (reliability.md D7), and answers
an unparsable request in plain text. Here headers have a deadline and a byte limit, and even the
answer to garbage has the error body that OpenAI's clients read. Nor does it bound how long a client
may leave its answer unread, or how many connections one address opens.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.api.envelope import error_body, error_headers
from app.config import Server
from app.errors import CallError, InvalidRequest, RateLimited
from app.ids import new_call_id

HEADER_BYTES_MAX = 32 * 1024
HEADER_SECONDS_MAX = 15.0
LINGER_SECONDS = 1.0
RETRY_CONNECTING_SECONDS = 5
_CLOSE = (b"connection", b"close")
_LOOPBACK = ("127.", "::1", "::ffff:127.")


def answer_at_once(
    send: Any, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Write a whole answer in one piece, where ``send`` is uvicorn's own and nothing is in the way;
    whether it was. The headers must be ours: they are not checked, and name the body's length.

    As two messages it costs two writes to the system, a tenth of a small call.
    """
    cycle, headers = _free_cycle(send), list(headers)
    if cycle is None or _CLOSE in headers:
        return False
    cycle.transport.write(b"".join((*_head(cycle, status, headers), b"\r\n", body)))
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def begin_at_once(
    send: Any, status: int, headers: Iterable[tuple[bytes, bytes]], piece: bytes
) -> bool:
    """As ``answer_at_once``, for the head of a stream with its first piece, which is not empty."""
    cycle = _free_cycle(send)
    if cycle is None:
        return False
    head = _head(cycle, status, headers)
    framing = b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(piece)
    cycle.transport.write(b"".join((*head, framing, piece, b"\r\n")))
    cycle.chunked_encoding = True
    return True


def piece_writer(send: Any) -> Callable[[bytes], bool] | None:
    """What writes a piece of a begun stream's body at once, or returns False where that must wait;
    None where ``send`` is not uvicorn's own. As a message it costs more than the writing does.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.scope["method"] == "HEAD":
        return None

    def write(piece: bytes) -> bool:
        if not (cycle.response_started and cycle.chunked_encoding) or cycle.response_complete:
            return False
        if cycle.disconnected or cycle.flow.write_paused or cycle.transport.is_closing():
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return True

    return write


def _free_cycle(send: Any) -> RequestResponseCycle | None:
    """The server's object for this request, if it can be written for without waiting."""
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.response_started:
        return None
    if cycle.disconnected or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
        return None
    return cycle


def _head(
    cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]]
) -> list[bytes]:
    """The status line and the headers, without the blank line behind them."""
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    cycle.response_started = True
    cycle.waiting_for_100_continue = False
    return parts


class Awaiting(Enum):
    """What a connection's next bytes belong to."""

    REQUEST = "a request that has not begun"
    HEADERS = "headers"
    BODY = "a body"


class BoundedHttp(HttpToolsProtocol):
    """One connection. A request that arrives in one piece, as most do, costs no timer."""

    body_idle_seconds_max = 30.0
    body_seconds_max = 120.0
    unread_seconds_max = 60.0
    connections_per_address_max = 100
    connections_by_address: ClassVar[Counter[str]] = Counter()

    _address = ""
    _unread_alarm: asyncio.TimerHandle | None = None
    _alarm: asyncio.TimerHandle | None = None
    _awaiting = Awaiting.REQUEST
    _header_bytes = 0
    _body_give_up_at = 0.0
    _refused = False
    is_kept = False
    """Whether requests came on this connection before, in the program before this one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        super().connection_made(transport)
        if not self._is_one_of_few():
            return
        if self.is_kept:
            self._alarm = self.loop.call_later(self.timeout_keep_alive, self._late)
        else:
            self._alarm = self.loop.call_later(HEADER_SECONDS_MAX, self._late)

    def is_idle(self) -> bool:
        """Whether nothing is under way: no answer, and no byte of a request."""
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        if cycle is not None and not cycle.response_complete:
            return False
        if self.pipeline or self._refused or self.transport.is_closing():
            return False
        if self._awaiting is not Awaiting.REQUEST or self._header_bytes:
            return False
        return not self.transport.get_write_buffer_size()

    def let_go(self) -> socket.socket:
        """Give the idle connection away, open as it is: what comes in from now on waits in it."""
        self.transport.pause_reading()
        given = self.transport.get_extra_info("socket")
        kept = socket.fromfd(given.fileno(), given.family, given.type)  # a descriptor of its own
        self.transport.close()
        return kept

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_alarm()
        if self._unread_alarm is not None:
            self._unread_alarm.cancel()
        if self._address:
            self.connections_by_address[self._address] -= 1
            if not self.connections_by_address[self._address]:
                del self.connections_by_address[self._address]
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unread()

    def resume_writing(self) -> None:
        if self._unread_alarm is not None:
            self._unread_alarm.cancel()
            self._unread_alarm = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        before = self._awaiting
        if before is not Awaiting.BODY:
            self._header_bytes += len(data)
            # A body may share the read with its headers, so only a second read can be too much.
            if self._header_bytes > HEADER_BYTES_MAX and self._header_bytes != len(data):
                self._refuse("The request's headers are larger than 32 KiB.")
                return
        super().data_received(data)
        now = self._awaiting
        if now is Awaiting.REQUEST:
            self._header_bytes = 0
            if self._alarm is not None:
                self._stop_alarm()
        elif now is Awaiting.HEADERS:
            if before is not Awaiting.HEADERS or self._alarm is None:
                self._set_alarm(HEADER_SECONDS_MAX)
        else:
            self._wait_for_body(begins=before is not Awaiting.BODY)

    def on_message_begin(self) -> None:
        self._awaiting = Awaiting.HEADERS
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._awaiting = Awaiting.BODY
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._awaiting = Awaiting.REQUEST
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed, and close."""
        self._refuse(f"{msg} Send HTTP/1.1 with one Host and one Content-Length.")

    def _wait_for_body(self, *, begins: bool) -> None:
        now = self.loop.time()
        if begins:
            self._body_give_up_at = now + self.body_seconds_max
        self._set_alarm(min(self.body_idle_seconds_max, self._body_give_up_at - now))

    def _set_alarm(self, seconds: float) -> None:
        self._stop_alarm()
        self._alarm = self.loop.call_later(seconds, self._late)

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _late(self) -> None:
        """The client took too long."""
        self._alarm = None
        if self.transport.is_closing():
            return
        answered = self._awaiting is Awaiting.BODY and self.cycle.response_started
        if answered or not self._header_bytes:
            # Already answered, or opened in advance and never used: nothing to say.
            self.transport.close()
            return
        self._refuse(
            f"The request's {self._awaiting.value.removeprefix('a ')} did not arrive in time."
        )

    def _leave_cycle(self) -> bool:
        """The application hears that the client of the request that is being answered is gone, and
        what it would still answer is not sent. Whether an answer had begun."""
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        if cycle is None or cycle.response_complete:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return bool(cycle.response_started)

    def _is_one_of_few(self) -> bool:
        """Whether its address may have one more connection. A proxy on this machine has all of
        them, and is not counted."""
        host = self.client[0] if self.client else ""
        if not host or not self.connections_per_address_max or not _is_counted(host):
            return True
        self._address = host
        self.connections_by_address[host] += 1
        most = self.connections_per_address_max
        if self.connections_by_address[host] <= most:
            return True
        self._answer_error(
            RateLimited(
                f"Your address has {most} connections open already. Close some, or send several"
                " requests on each.",
                code="too_many_connections",
                retry_after_s=RETRY_CONNECTING_SECONDS,
            )
        )
        return False

    def _watch_unread(self, before: int | None = None) -> None:
        """Cut a client off that takes nothing of its answer between two looks: it would hold its
        buffers, its task and its descriptor for ever."""
        self._unread_alarm = None
        size = self.transport.get_write_buffer_size()
        if before is not None and size >= before:
            self.transport.abort()
            return
        self._unread_alarm = self.loop.call_later(self.unread_seconds_max, self._watch_unread, size)

    def _refuse(self, message: str) -> None:
        self._answer_error(InvalidRequest(message, code="bad_request"))

    def _answer_error(self, error: CallError) -> None:
        """Say it in place of any answer that has not begun, and close."""
        self._stop_alarm()
        self._refused = True
        if self._leave_cycle():
            self.transport.close()
            return
        call_id = new_call_id()
        body = error_body(error, call_id)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"inference-id", call_id.encode()),
            _CLOSE,
            *error_headers(error),
        ]
        lines = (b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"".join((STATUS_LINE[error.status], *lines, b"\r\n", body)))
        # Closed at once, with bytes still coming in, the client's system would throw the answer
        # away; so only this side ends now.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _is_counted(address: str) -> bool:
    """Whether it is another machine's."""
    return not address.startswith(_LOOPBACK)


def bounded_http(server: Server) -> type[BoundedHttp]:
    """The protocol with the configured limits, and with its own count of connections."""

    class Configured(BoundedHttp):
        body_idle_seconds_max = server.body_idle_seconds_max
        body_seconds_max = server.body_seconds_max
        unread_seconds_max = server.unread_seconds_max
        connections_per_address_max = server.connections_per_address_max
        connections_by_address: ClassVar[Counter[str]] = Counter()

    return Configured
