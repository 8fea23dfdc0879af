"""What has been read of one streamed answer: from the network's bytes to deltas and usage."""

from plugins.chat import ChatRequest, ChoiceDelta
from plugins.contract import AdapterError, FailureKind, Usage
from plugins.openai_compatible import failures, wire
from plugins.openai_compatible.sse import EventParser, LineTooLong

LINE_BYTES_MAX = 1024 * 1024


class Reading:
    """One stream. ``ended`` and ``failure`` say how it stands after each ``take``."""

    def __init__(self, api_key: str | None) -> None:
        self.upstream_id = ""
        self.ended = False
        self.failure: AdapterError | None = None
        self._api_key = api_key
        self._parser = EventParser(LINE_BYTES_MAX)
        self._delivered = wire.Delivered()
        self._reported: Usage | None = None
        self._unfinished: set[int] = set()
        self._seen = False

    def take(self, piece: bytes | None) -> tuple[list[ChoiceDelta], bool]:
        """Deltas of one read (None: the body has ended), and whether any event was in it.

        A failure found behind good deltas is left in ``failure`` for after they are delivered.
        """
        deltas: list[ChoiceDelta] = []
        try:
            events = self._parser.finish() if piece is None else self._parser.feed(piece)
        except LineTooLong:
            self._break(f"a line of more than {LINE_BYTES_MAX} bytes")
            return deltas, False
        heard = bool(events)
        if b"[DONE]" in events:
            self.ended = True
            del events[events.index(b"[DONE]") :]
        self._take_events(events, deltas)
        if self.failure is not None:
            return deltas, heard
        if self.ended and not self._seen:
            self._break("the stream has no answer in it")
        elif piece is None and not self.ended:
            self.ended = True
            if self._unfinished or not self._seen:
                self._break("the stream ended in the middle of the answer")
        return deltas, heard

    def usage(self, request: ChatRequest) -> Usage:
        """The last usage that the provider reported, or an estimate of what was delivered."""
        return self._reported or self._delivered.estimate(request)

    def _take_events(self, events: list[bytes], deltas: list[ChoiceDelta]) -> None:
        """Decode all events of a read at once; one by one only where one of them is bad."""
        if len(events) > 1:
            try:
                chunks = wire.chunks_decoder.decode(b"[" + b",".join(events) + b"]")
            except wire.DECODE_ERRORS:
                chunks = []
            if len(chunks) == len(events):
                for chunk in chunks:
                    self._take_chunk(chunk, deltas)
                    if self.failure is not None:
                        return
                return
        for event in events:
            try:
                chunk = wire.chunk_decoder.decode(event)
            except wire.DECODE_ERRORS as error:
                said = failures.clean(event[:512].decode("utf-8", "replace"), self._api_key)
                self._break(f"{str(error)[:120]}: {said}")
                return
            self._take_chunk(chunk, deltas)
            if self.failure is not None:
                return

    def _take_chunk(self, chunk: wire.WireChunk, deltas: list[ChoiceDelta]) -> None:
        if chunk.error or chunk.object == "error":
            words = chunk.error or chunk.message
            self.failure = failures.error_in_answer(words, self._api_key)
            return
        if len(chunk.usage) > wire.NULL_BYTES:
            self._reported = wire.usage_of(chunk.usage) or self._reported
        choices = chunk.choices
        if not choices:
            return
        if not self._seen:
            self._seen = True
            self.upstream_id = chunk.id or ""
        for choice in choices:
            if choice.finish_reason:
                self._unfinished.discard(choice.index)
            else:
                choice.finish_reason = None
                self._unfinished.add(choice.index)
            self._delivered.add(choice.delta)
        deltas += choices

    def _break(self, detail: str) -> None:
        self.failure = AdapterError(
            FailureKind.PROTOCOL, "the provider's stream cannot be read", detail=detail
        )
