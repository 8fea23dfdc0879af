"""One connection to a server: bytes in and out, one exchange at a time.

httptools (llhttp, in its strict mode) reads the replies; what it does not bound is bounded here:
the head, trailers, and what comes when nobody asked. It costs no timer per exchange: the
connection's one timer is set for the earliest moment that matters, looks again when it fires, and
mostly finds that the moment has moved on.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import httptools

from plugins.contract import AdapterError, FailureKind
from plugins.http.exchange import BEHIND_BYTES_MAX, Exchange, too_large

HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 256
# Of one read, until they are put together.
PIECES_MAX = 64
# Timers of an event loop may fire this early: uvloop counts in milliseconds.
_EARLY_S = 0.002
_NEVER = float("inf")


class Connection(asyncio.Protocol):
    """``on_free`` is called when an exchange ended well and another may follow, ``on_lost`` once,
    when the connection has closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        raw: socket.socket,
        *,
        on_free: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self.loop = loop
        self.free_since = 0.0
        self.closed = False
        self._raw = raw
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._exchange: Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._heard_at = 0.0
        self._paused = False
        # Of the reply that is being read.
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_read = False
        self._interim = False
        self._ended = False
        self._surplus = False
        self._keeps = False
        self._body_bytes = 0
        self._framing_bytes = 0
        self._parser = httptools.HttpResponseParser(self)

    # What exchanges and the pool ask for.

    def is_fresh(self) -> bool:
        """Whether a request may be written: the other side has neither closed the connection nor
        said anything. Asks the system, since the event loop may not have looked yet.
        """
        if self.closed:
            return False
        try:
            self._raw.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def send(self, exchange: Exchange, request: bytes) -> None:
        """Write a request whose reply goes into ``exchange``."""
        self._exchange = exchange
        self._headers = exchange.headers
        self._head_read = self._interim = self._ended = self._surplus = False
        self._body_bytes = self._framing_bytes = 0
        self._transport.write(request)

    def watch(self, exchange: Exchange) -> asyncio.Future[None]:
        """What wakes the exchange's reader: more to read, the end, or its time being up."""
        now = self._heard_at = self.loop.time()
        due = min(exchange.by, now + exchange.silence_s)
        if due < self._timer_at:
            self._set_timer(due)
        return self.loop.create_future()

    def resume(self, exchange: Exchange) -> None:
        """The reader has caught up."""
        if self._paused and exchange is self._exchange:
            self._paused = False
            self._transport.resume_reading()

    def expire(self, exchange: Exchange) -> AdapterError:
        """The exchange ran out of time."""
        error = AdapterError(FailureKind.TIMEOUT, "the provider took too long")
        self._fail(exchange, error)
        return error

    def drop(self, exchange: Exchange) -> None:
        """The exchange's reader has left."""
        if exchange is self._exchange:
            self.abort()

    def abort(self) -> None:
        """Close at once; an exchange in progress hears nothing more."""
        self.closed = True
        self._exchange = None
        self._stop_timer()
        self._transport.abort()

    def stop(self, error: AdapterError) -> None:
        """Close at once; an exchange in progress fails."""
        if self._exchange is not None:
            self._fail(self._exchange, error)
        else:
            self.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Nothing was asked for: whatever this is, it must not become the next answer.
            self.abort()
            return
        exchange.heard = True
        self._heard_at = self.loop.time()
        had_head = self._head_read
        body_bytes, had_pieces = self._body_bytes, len(exchange.pieces)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._ended:
                self._fail(exchange, _not_http(error))
                return
            self._surplus = True
        if self._head_read and not had_head and self._is_head_too_large(len(data)):
            self._fail(exchange, _not_http("the head is too large"))
        elif self._ended:
            self._finish(exchange)
        elif self._body_bytes == body_bytes:
            self._count_framing(exchange, len(data))
        else:
            self._framing_bytes = 0
            self._deliver(exchange, had_pieces)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._stop_timer()
        self._on_lost(self)
        exchange = self._exchange
        if exchange is None:
            return
        lengths = {name.lower() for name, _ in exchange.headers} if self._head_read else set()
        if exc is None and self._head_read and not lengths & _LENGTHS:
            self._keeps = False
            self._finish(exchange)
        elif exc is None and b"content-length" in lengths:
            error = AdapterError(FailureKind.PROTOCOL, "the provider's answer is cut short")
            self._fail(exchange, error)
        else:
            self._fail(exchange, broke(exc))

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._surplus = self._ended

    def on_header(self, name: bytes, value: bytes) -> None:
        # Those after the head are trailers.
        if not self._head_read:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._ended or self._exchange is None:
            return
        if status < 200:
            self._interim = True
        else:
            self._exchange.status = status
            self._head_read = True

    def on_body(self, piece: bytes) -> None:
        exchange = self._exchange
        if exchange is not None and not self._ended:
            exchange.pieces.append(piece)
            exchange.waiting_bytes += len(piece)
            self._body_bytes += len(piece)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self._headers.clear()
        else:
            self._ended = True
            self._keeps = self._parser.should_keep_alive()

    # How exchanges end.

    def _is_head_too_large(self, received_bytes: int) -> bool:
        headers = self._headers
        if len(headers) > HEADERS_MAX:
            return True
        # A head that came in small reads was counted as it came.
        return (
            received_bytes > HEAD_BYTES_MAX
            and sum(len(name) + len(value) for name, value in headers) > HEAD_BYTES_MAX
        )

    def _count_framing(self, exchange: Exchange, received_bytes: int) -> None:
        """What came is no body: a head, trailers or sizes of chunks, which the parser keeps."""
        self._framing_bytes += received_bytes
        if self._framing_bytes > HEAD_BYTES_MAX:
            self._fail(exchange, _not_http("more than 64 KiB that are no body"))
        elif self._head_read and not exchange.whole:
            exchange.wake()

    def _deliver(self, exchange: Exchange, had_pieces: int) -> None:
        """More of the body is here."""
        if exchange.whole:
            if len(exchange.pieces) > had_pieces + PIECES_MAX:
                # Chunks of a byte each would take fifty times their size.
                exchange.pieces[had_pieces:] = [b"".join(exchange.pieces[had_pieces:])]
            if self._body_bytes > exchange.whole_bytes_max():
                self.abort()
                _cut(exchange)
                exchange.wake()
            return
        if exchange.waiting_bytes > BEHIND_BYTES_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        exchange.wake()

    def _finish(self, exchange: Exchange) -> None:
        """The whole reply is here."""
        exchange.complete = True
        self._exchange = None
        transport = self._transport
        if self._paused:
            self._paused = False
            transport.resume_reading()
        if self.closed or not self._keeps or self._surplus or transport.get_write_buffer_size():
            self.abort()
        else:
            self._on_free(self)
        if exchange.whole and self._body_bytes > exchange.whole_bytes_max():
            _cut(exchange)
        exchange.wake()

    def _fail(self, exchange: Exchange, error: AdapterError) -> None:
        self.abort()
        exchange.failure = error
        exchange.wake()

    # Time.

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_at(at, self._look_at_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = _NEVER

    def _look_at_time(self) -> None:
        self._timer = None
        self._timer_at = _NEVER
        exchange = self._exchange
        if exchange is None or exchange.waiter is None:
            return
        due = min(exchange.by, self._heard_at + exchange.silence_s)
        if self.loop.time() + _EARLY_S >= due:
            self.expire(exchange)
        else:
            self._set_timer(due)


_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})


def broke(error: Exception | None) -> AdapterError:
    """The failure of a connection that ended too soon."""
    detail = f"{type(error).__name__}: {error}" if error else "closed by the other side"
    return AdapterError(FailureKind.UPSTREAM, "the connection to the provider broke", detail=detail)


def _not_http(why: object) -> AdapterError:
    return AdapterError(
        FailureKind.PROTOCOL, "the provider's answer is not HTTP", detail=str(why)[:200]
    )


def _cut(exchange: Exchange) -> None:
    """A refusal is long enough as it is; an answer that is too long is none."""
    bytes_max = exchange.whole_bytes_max()
    if 200 <= exchange.status < 300:
        exchange.complete = False
        exchange.failure = too_large(bytes_max)
    else:
        exchange.complete = True
