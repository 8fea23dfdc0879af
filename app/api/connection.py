"""What is bounded before a request exists: uvicorn's parser with limits of ours.

uvicorn waits for headers without end and takes them at any size (reliability.md D7), and answers
an unparsable request in plain text. Here headers have a deadline and a byte limit, and even the
answer to garbage has the error body that OpenAI's clients read.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.envelope import error_body
from app.errors import InvalidRequest
from app.ids import new_call_id

HEADER_BYTES_MAX = 32 * 1024
HEADER_SECONDS_MAX = 15.0
LINGER_SECONDS = 1.0


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    _header_alarm: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        super().connection_made(transport)
        self._header_alarm = self.loop.call_later(HEADER_SECONDS_MAX, self._headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_alarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_alarm is None:  # a later request on a kept connection began
                self._header_alarm = self.loop.call_later(HEADER_SECONDS_MAX, self._headers_late)
            # A body may share the read with its headers, so only a second read can be too much.
            if self._header_bytes > HEADER_BYTES_MAX and self._header_bytes != len(data):
                self._refuse("The request's headers are larger than 32 KiB.")
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._stop_alarm()
        self._in_headers = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed, and close."""
        self._refuse(f"{msg} Send HTTP/1.1 with one Host and one Content-Length.")

    def _headers_late(self) -> None:
        self._header_alarm = None
        if self.transport.is_closing():
            return
        if not self._header_bytes:  # opened in advance and never used: no answer to confuse it with
            self.transport.close()
        else:
            self._refuse("The request's headers did not arrive within 15 seconds.")

    def _stop_alarm(self) -> None:
        if self._header_alarm is not None:
            self._header_alarm.cancel()
            self._header_alarm = None

    def _refuse(self, message: str) -> None:
        self._stop_alarm()
        call_id = new_call_id()
        body = error_body(InvalidRequest(message, code="bad_request"), call_id)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\ninference-id: {call_id}\r\nconnection: close\r\n\r\n"
        )
        self._refused = True
        self.transport.write(head.encode() + body)
        # Closed at once, with bytes still coming in, the client's system would throw the answer
        # away; so only this side ends now.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
