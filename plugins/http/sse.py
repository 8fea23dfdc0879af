"""Server-sent events, read from bytes as they arrive (WHATWG HTML, section 9.2.6).

Only the ``data`` of events is kept: OpenAI-compatible streams say everything there. Lines may end
with LF, CRLF or CR, the bytes may be cut anywhere, and comments and other fields are skipped.
"""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineTooLong(Exception):
    """One line, or the data of one event, is longer than the limit."""


class EventParser:
    """Feed bytes, get the data of every event that they complete."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, received: bytes) -> list[bytes]:
        """Data of the events completed by these bytes, in order. Raises LineTooLong."""
        if self._after_cr and received:
            # The CR before was the line's end already; this LF belongs to it.
            self._after_cr = False
            received = received.removeprefix(b"\n")
        if b"\r" in received:
            self._after_cr = received.endswith(b"\r")
            received = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in received:
            self._keep(received)
            return []
        if self._line:
            received = bytes(self._line) + received
            self._line.clear()
        # Bytes up to the last blank line are whole events; the rest waits for its end.
        cut = received.rfind(b"\n\n") + 2
        if cut > 1:
            events = self._take_blocks(received[:cut])
            received = received[cut:]
        else:
            events = []
        lines = received.split(b"\n")
        rest = lines.pop()
        for line in lines:
            self._take(line, events)
        self._keep(rest)
        return events

    def finish(self) -> list[bytes]:
        """What is left when the stream ends: servers forget the last line's end."""
        events: list[bytes] = []
        self._take(bytes(self._line), events)
        self._take(b"", events)
        self._line.clear()
        return events

    def _take_blocks(self, blocks: bytes) -> list[bytes]:
        """Bytes that end with a blank line, in lines that end with LF."""
        if not self._data and len(blocks) <= self._line_bytes_max and blocks.startswith(b"data: "):
            # Nearly every read is events of one line each, which one split takes apart: it did so
            # where no other line end is left in them.
            events = blocks[6:-2].split(b"\n\ndata: ")
            if blocks.count(b"\n") == 2 * len(events) and b"" not in events:
                self._at_start = False
                return events
        events = []
        for line in blocks.split(b"\n")[:-1]:
            self._take(line, events)
        return events

    def _keep(self, part: bytes) -> None:
        """Part of a line whose end has not come yet."""
        if part:
            self._line += part
            if len(self._line) > self._line_bytes_max:
                raise LineTooLong

    def _take(self, line: bytes, events: list[bytes]) -> None:
        """One line without its end; a blank one completes an event."""
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data_bytes += len(value)
            if self._data_bytes > self._line_bytes_max:
                raise LineTooLong
            self._data.append(value)
        elif not line and self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            if data:
                events.append(data)
            self._data.clear()
            self._data_bytes = 0
