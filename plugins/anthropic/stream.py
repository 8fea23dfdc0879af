"""What has been read of one streamed answer: from the network's bytes to deltas and usage."""

import msgspec
from msgspec import UNSET

from plugins.anthropic import refusals, wire
from plugins.chat import ChatRequest, ChoiceDelta, Delta, Object
from plugins.contract import AdapterError, FailureKind, Usage
from plugins.http import failures
from plugins.http.sse import EventParser, LineTooLong
from plugins.openai_compatible.wire import Delivered

LINE_BYTES_MAX = 1024 * 1024


class Answer:
    """An answer that grows block by block, as deltas. Amazon's Converse streams are read with it
    too."""

    def __init__(self, *, hide_thoughts: bool) -> None:
        self.delivered = Delivered()
        self._hide_thoughts = hide_thoughts
        self._deltas: list[ChoiceDelta] = []
        self._begun = False
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._details = 0

    def take_deltas(self) -> list[ChoiceDelta]:
        """The deltas since the last time."""
        deltas, self._deltas = self._deltas, []
        return deltas

    def text(self, piece: str) -> None:
        """A piece of the answer's text."""
        if piece:
            self._say(Delta(content=piece))

    def begin_call(self, block: int, given: str | None, name: str | None, whole: object) -> None:
        """A tool call begins; its arguments come in pieces, or are in ``whole`` already."""
        call = wire.tool_call(given, name, "", self._calls)
        self._open[block] = _Open(call=self._calls, whole=whole)
        self._say(Delta(tool_calls=[{"index": self._calls, **call}]))
        self._calls += 1

    def arguments(self, block: int, piece: str) -> None:
        """A piece of a tool call's arguments."""
        if (open_ := self._open.get(block)) is not None and open_.call is not None and piece:
            open_.whole = None
            open_.said = True
            self._say_arguments(open_.call, piece)

    def thought(self, block: int, piece: str) -> None:
        """A piece of what the model thinks."""
        open_ = self._open.setdefault(block, _Open())
        open_.text += piece
        if piece and not self._hide_thoughts:
            self._say(Delta(reasoning_content=piece))
        elif piece:
            self.delivered.add(Delta(reasoning_content=piece))

    def signature(self, block: int, signature: str) -> None:
        """The signature of a thought."""
        self._open.setdefault(block, _Open()).signature += signature

    def sealed(self, block: int, data: str) -> None:
        """An encrypted thought, or a piece of one."""
        self._open.setdefault(block, _Open()).data += data

    def end_block(self, block: int) -> None:
        """A block is complete: a thought is told once more, whole, in the form to be sent back."""
        open_ = self._open.pop(block, None)
        if open_ is None:
            return
        if open_.call is not None and not open_.said:
            self._say_arguments(open_.call, wire.arguments_of(open_.whole))
        if open_.signature:
            detail = wire.thought_detail(self._details, open_.text, open_.signature)
            self._say_detail(detail)
        if open_.data:
            self._say_detail(wire.sealed_detail(self._details, open_.data))

    def end(self, finish: str, refusal: str | None) -> None:
        """The answer is complete."""
        for block in sorted(self._open):
            self.end_block(block)
        self._say(Delta(refusal=refusal or UNSET), finish)

    def _say_arguments(self, call: int, piece: str) -> None:
        self._say(Delta(tool_calls=[{"index": call, "function": {"arguments": piece}}]))

    def _say_detail(self, detail: Object) -> None:
        self._details += 1
        if not self._hide_thoughts:
            self._say(Delta(reasoning_details=[detail]))

    def _say(self, delta: Delta, finish: str | None = None) -> None:
        self.delivered.add(delta)
        if not self._begun:
            self._begun = True
            delta.role = "assistant"
        self._deltas.append(ChoiceDelta(index=0, delta=delta, finish_reason=finish))


class _Open(msgspec.Struct):
    """A block that has begun. ``call`` is the number of the tool call that it is."""

    call: int | None = None
    whole: object = None
    said: bool = False
    text: str = ""
    signature: str = ""
    data: str = ""


class Reading:
    """One stream. ``started``, ``ended`` and ``failure`` say how it stands after each ``take``."""

    def __init__(self, api_key: str | None, *, hide_thoughts: bool) -> None:
        self.upstream_id = ""
        self.started = False
        self.ended = False
        self.failure: AdapterError | None = None
        self._api_key = api_key
        self._parser = EventParser(LINE_BYTES_MAX)
        self._answer = Answer(hide_thoughts=hide_thoughts)
        self._counted: wire.WireUsage | None = None
        self._finished = False

    def take(self, piece: bytes | None) -> tuple[list[ChoiceDelta], bool]:
        """Deltas of one read (None: the body has ended), and whether any event was in it.

        A failure found behind good deltas is left in ``failure`` for after they are delivered.
        """
        try:
            events = self._parser.finish() if piece is None else self._parser.feed(piece)
        except LineTooLong:
            self._break(f"a line of more than {LINE_BYTES_MAX} bytes")
            return [], False
        for data in events:
            self._take_event(data)
            if self.ended or self.failure is not None:
                break
        if piece is None and not self.ended and self.failure is None:
            self.ended = True
            if not self._finished:
                self._break("the stream ended in the middle of the answer")
        return self._answer.take_deltas(), bool(events)

    def usage(self, request: ChatRequest) -> Usage:
        """What the provider counted; before the answer's end, what it counted of the prompt and an
        estimate of what was delivered."""
        counted = wire.buckets_of(self._counted)
        if counted is not None and self._finished:
            return counted
        guess = self._answer.delivered.estimate(request)
        if counted is None:
            return guess
        return msgspec.structs.replace(
            counted,
            output_tokens=max(counted.output_tokens, guess.output_tokens),
            reasoning_tokens=max(counted.reasoning_tokens, guess.reasoning_tokens),
            estimated=True,
        )

    def _take_event(self, data: bytes) -> None:
        try:
            event = wire.event_of(data)
        except failures.DECODE_ERRORS as error:
            said = failures.clean(data[:512].decode("utf-8", "replace"), self._api_key)
            self._break(f"{str(error)[:120]}: {said}")
            return
        if event is None:
            return
        if event.type == "error":
            self.failure = refusals.in_answer(event.error, self._api_key)
        elif event.type == "message_start":
            self._begin(event.message)
        elif not self.started:
            self._break(f"{event.type} before message_start")
        elif event.type == "message_stop":
            self.ended = True
            if not self._finished:
                self._break("the answer does not say why it ended")
        else:
            self._take_part(event)

    def _begin(self, message: wire.WireMessage | None) -> None:
        if message is None:
            self._break("message_start without a message")
            return
        self.started = True
        self.upstream_id = (message.id or "")[: wire.ID_LENGTH_MAX]
        self._counted = wire.usage_of(message.usage)

    def _take_part(self, event: wire.WireEvent) -> None:
        answer, delta = self._answer, event.delta
        if event.type == "content_block_stop":
            answer.end_block(event.index)
        elif event.type == "content_block_start":
            self._begin_block(event.index, event.content_block)
        elif delta is None:
            return
        elif event.type == "message_delta":
            self._counted = wire.merged(self._counted, wire.usage_of(event.usage))
            if delta.stop_reason and not self._finished:
                self._finished = True
                refusal = wire.refusal_of(delta.stop_reason, delta.stop_details)
                answer.end(wire.finish_of(delta.stop_reason), refusal)
        elif delta.type == "text_delta":
            answer.text(delta.text or "")
        elif delta.type == "input_json_delta":
            answer.arguments(event.index, delta.partial_json or "")
        elif delta.type == "thinking_delta":
            answer.thought(event.index, delta.thinking or "")
        elif delta.type == "signature_delta":
            answer.signature(event.index, delta.signature or "")

    def _begin_block(self, index: int, block: wire.WireBlock | None) -> None:
        if block is None:
            return
        if block.type == "text":
            self._answer.text(block.text or "")
        elif block.type == "tool_use":
            self._answer.begin_call(index, block.id, block.name, block.input)
        elif block.type == "thinking":
            self._answer.thought(index, block.thinking or "")
            self._answer.signature(index, block.signature or "")
        elif block.type == "redacted_thinking":
            self._answer.sealed(index, block.data or "")

    def _break(self, detail: str) -> None:
        self.failure = AdapterError(
            FailureKind.PROTOCOL, "the provider's stream cannot be read", detail=detail
        )
