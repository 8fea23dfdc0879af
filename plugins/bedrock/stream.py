"""What has been read of one ConverseStream: from the network's bytes to deltas and usage."""

import base64

from plugins.anthropic.stream import Answer
from plugins.bedrock import refusals, wire
from plugins.bedrock.frames import Frame, FrameParser
from plugins.chat import ChatRequest, ChoiceDelta
from plugins.contract import AdapterError, FailureKind, Usage
from plugins.http import failures

FRAME_BYTES_MAX = 1024 * 1024


class Reading:
    """One stream. ``started``, ``ended`` and ``failure`` say how it stands after each ``take``."""

    def __init__(self, api_key: str | None, *, hide_thoughts: bool) -> None:
        self.started = False
        self.ended = False
        self.failure: AdapterError | None = None
        self._api_key = api_key
        self._parser = FrameParser(FRAME_BYTES_MAX)
        self._answer = Answer(hide_thoughts=hide_thoughts)
        self._usage: Usage | None = None
        self._finished = False
        self._sealed: dict[int, bytes] = {}

    def take(self, piece: bytes | None) -> tuple[list[ChoiceDelta], bool]:
        """Deltas of one read (None: the body has ended), and whether any event was in it.

        A failure found behind good deltas is left in ``failure`` for after they are delivered.
        """
        frames = [] if piece is None else self._parser.feed(piece)
        for frame in frames:
            self._take_frame(frame)
            if self.ended or self.failure is not None:
                break
        if self.failure is None and not self.ended:
            if self._parser.bad is not None:
                self._break(self._parser.bad)
            elif piece is None:
                self.ended = True
                if not self._finished:
                    self._break("the stream ended in the middle of the answer")
        return self._answer.take_deltas(), bool(frames)

    def usage(self, request: ChatRequest) -> Usage:
        """What the provider counted, or an estimate of what was delivered."""
        return self._usage or self._answer.delivered.estimate(request)

    def _take_frame(self, frame: Frame) -> None:
        kind = frame.headers.get(":message-type")
        if kind == "error":
            name = frame.headers.get(":error-code", "")
            message = frame.headers.get(":error-message", "")
            self.failure = refusals.in_stream(name, message, self._api_key)
            return
        try:
            event = wire.event_decoder.decode(frame.payload)
        except failures.DECODE_ERRORS as error:
            said = failures.clean(frame.payload[:512].decode("utf-8", "replace"), self._api_key)
            self._break(f"{str(error)[:120]}: {said}")
            return
        if kind == "exception":
            name = frame.headers.get(":exception-type", "")
            self.failure = refusals.in_stream(name, event.message or "", self._api_key)
        elif kind == "event":
            self._take_event(frame.headers.get(":event-type", ""), event)
        else:
            self._break(f"a frame of the type {str(kind)[:64]!r}")

    def _take_event(self, name: str, event: wire.WireEvent) -> None:
        answer, index = self._answer, event.content_block_index
        if name == "messageStart":
            self.started = True
        elif not self.started:
            self._break(f"{name[:64]} before messageStart")
        elif name == "contentBlockStart":
            if event.start is not None and (use := event.start.tool_use) is not None:
                answer.begin_call(index, use.tool_use_id, use.name, use.input)
        elif name == "contentBlockDelta":
            self._take_delta(index, event.delta)
        elif name == "contentBlockStop":
            if (sealed := self._sealed.pop(index, None)) is not None:
                answer.sealed(index, base64.b64encode(sealed).decode())
            answer.end_block(index)
        elif name == "messageStop":
            self._finish(event.stop_reason)
        elif name == "metadata":
            self._usage = wire.usage_of(event.usage)
            # The last event of a stream, and the one that carries its cost.
            self.ended = self._finished

    def _take_delta(self, index: int, delta: wire.Part | None) -> None:
        if delta is None:
            return
        if delta.text is not None:
            self._answer.text(delta.text)
        elif (use := delta.tool_use) is not None:
            self._answer.arguments(index, use.input if isinstance(use.input, str) else "")
        elif (thought := delta.reasoning_content) is not None:
            if thought.text:
                self._answer.thought(index, thought.text)
            if thought.signature:
                self._answer.signature(index, thought.signature)
            if thought.redacted_content:
                self._seal(index, thought.redacted_content)

    def _seal(self, index: int, piece: str) -> None:
        """A piece of an encrypted thought: each is base64 by itself, as the whole one has to be."""
        try:
            found = base64.b64decode(piece, validate=True)
        except ValueError:
            self._break("redactedContent is not base64")
            return
        self._sealed[index] = self._sealed.get(index, b"") + found

    def _finish(self, stop_reason: str | None) -> None:
        if stop_reason in wire.MALFORMED:
            self.failure = malformed(stop_reason)
        elif not self._finished:
            self._finished = True
            self._answer.end(wire.finish_of(stop_reason), wire.refusal_of(stop_reason))

    def _break(self, detail: str) -> None:
        self.failure = AdapterError(
            FailureKind.PROTOCOL, "the provider's stream cannot be read", detail=detail
        )


def malformed(stop_reason: str | None, usage: Usage | None = None) -> AdapterError:
    """The model began an answer that it could not form."""
    return AdapterError(
        FailureKind.UPSTREAM,
        "the model's answer was malformed",
        detail=f"stopReason {stop_reason}",
        usage=usage,
    )
