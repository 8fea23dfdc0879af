"""What has been read of one streamed answer: from the network's bytes to deltas and usage."""

from msgspec import Raw

from plugins.chat import ChatRequest, ChoiceDelta, Delta
from plugins.contract import AdapterError, FailureKind, Usage
from plugins.http import failures
from plugins.http.sse import EventParser, LineTooLong
from plugins.openai_compatible import loose, mending, refusals, wire

LINE_BYTES_MAX = 1024 * 1024
TALKED_ON_MAX = 64  # pieces behind the end of an answer, after which nobody listens any more


class Reading:
    """One stream. ``ended`` and ``failure`` say how it stands after each ``take``."""

    def __init__(self, api_key: str | None, *, reasoning_apart: bool = False) -> None:
        self.upstream_id = ""
        self.ended = False
        self.failure: AdapterError | None = None
        self._api_key = api_key
        self._parser = EventParser(LINE_BYTES_MAX)
        self._delivered = wire.Delivered()
        self._reported: Usage | None = None
        self._reasoning_apart = reasoning_apart
        self._unfinished: set[int] = set()
        self._finished: set[int] = set()
        self._tools: dict[int, mending.ToolCalls] = {}
        self._talked_on = 0
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
        elif self.ended and self._unfinished:
            self._finish(deltas)
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
            except failures.DECODE_ERRORS:
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
            except failures.DECODE_ERRORS:
                if event.strip() == b"[DONE]":
                    self.ended = True
                    return
                found = self._loosely(event)
                if found is None:
                    return
                chunk = found
            self._take_chunk(chunk, deltas)
            if self.failure is not None:
                return

    def _loosely(self, event: bytes) -> wire.WireChunk | None:
        """An event whose types are not those of the format; None where nothing is left to read."""
        try:
            return loose.chunk_of(event)
        except failures.DECODE_ERRORS as error:
            said = failures.clean(event[:512].decode("utf-8", "replace"), self._api_key)
            self._break(f"{str(error)[:120]}: {said}")
            return None

    def _take_chunk(self, chunk: wire.WireChunk, deltas: list[ChoiceDelta]) -> None:
        if chunk.error or chunk.object == "error":
            words = chunk.error or chunk.message
            self.failure = refusals.in_answer(words, self._api_key)
            return
        if len(chunk.usage) > wire.NULL_BYTES:
            self._reported = self._usage_of(chunk.usage) or self._reported
        elif chunk.x_groq is not None:
            self._reported = self._usage_of(chunk.x_groq.usage) or self._reported
        choices = chunk.choices
        if not choices:
            if chunk.message:
                self.failure = refusals.in_answer(chunk.message, self._api_key)
            return
        if not self._seen:
            self._seen = True
            self.upstream_id = chunk.id or ""
        try:
            for choice in choices:
                delta = choice.delta
                if delta.tool_calls or delta.reasoning or choice.finish_reason or self._finished:
                    self._mend(choice)
                else:  # nearly every one
                    choice.finish_reason = None
                    self._unfinished.add(choice.index)
                self._delivered.add(choice.delta)
        except AdapterError as error:
            self.failure = error
            return
        deltas += choices

    def _mend(self, choice: wire.WireDelta) -> None:
        """Make it canonical. Raises AdapterError where the provider says that it broke off."""
        delta = choice.delta
        if delta.reasoning:
            mending.mend_reasoning(delta)
        if delta.tool_calls:
            tools = self._tools.get(choice.index)
            if tools is None:
                tools = self._tools[choice.index] = mending.ToolCalls()
            tools.mend(delta.tool_calls)
        if choice.index in self._finished:
            # OpenRouter says the reason again with the usage; nobody is told twice, and what a
            # provider goes on to say is no part of the answer.
            choice.finish_reason = None
            if delta.content or delta.tool_calls or delta.reasoning_content:
                choice.delta = Delta()
                self._talked_on += 1
                self.ended = self.ended or self._talked_on > TALKED_ON_MAX
        elif choice.finish_reason:
            choice.finish_reason = mending.reason_of(choice.finish_reason)
            self._unfinished.discard(choice.index)
            self._finished.add(choice.index)
        else:
            choice.finish_reason = None
            self._unfinished.add(choice.index)

    def _finish(self, deltas: list[ChoiceDelta]) -> None:
        """The provider says that the answer is complete, without a reason (xAI, for tools)."""
        for index in sorted(self._unfinished):
            reason = "tool_calls" if index in self._tools else "stop"
            deltas.append(ChoiceDelta(index=index, delta=Delta(), finish_reason=reason))
        self._unfinished.clear()

    def _usage_of(self, raw: Raw) -> Usage | None:
        return wire.usage_of(raw, reasoning_apart=self._reasoning_apart)

    def _break(self, detail: str) -> None:
        self.failure = AdapterError(
            FailureKind.PROTOCOL, "the provider's stream cannot be read", detail=detail
        )
