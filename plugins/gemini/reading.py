"""What has been read of one call: from the network's bytes to deltas and usage."""

import msgspec

from plugins.chat import ChatRequest, ChoiceDelta
from plugins.contract import AdapterError, FailureKind, Usage
from plugins.gemini import refusals, wire
from plugins.gemini.answer import Answer
from plugins.http import failures
from plugins.http.sse import EventParser, LineTooLong
from plugins.openai_compatible.wire import Delivered

# A signature alone can be hundreds of kilobytes.
LINE_BYTES_MAX = 8 * 1024 * 1024
_CANDIDATES_MAX = 128


class Reading:
    """One call. ``upstream_id``, ``ended``, ``finished`` and ``failure`` say how it stands."""

    def __init__(self, api_key: str | None, seed: str, wanted: int = 1) -> None:
        """``wanted`` is how many answers were asked for; ``seed`` stands in for a missing id."""
        self.upstream_id = ""
        self.started = False
        self.ended = False
        self.failure: AdapterError | None = None
        self._api_key = api_key
        self._seed = seed
        self._wanted = wanted
        self._parser = EventParser(LINE_BYTES_MAX)
        self._answers: dict[int, Answer] = {}
        self._delivered = Delivered()
        self._counted: wire.WireUsage | None = None

    @property
    def finished(self) -> bool:
        """Whether every answer says why it ended. Usage may still come."""
        answers = self._answers.values()
        return len(answers) >= self._wanted and all(answer.finished for answer in answers)

    def take(self, piece: bytes | None) -> tuple[list[ChoiceDelta], bool]:
        """Deltas of one read (None: the body has ended), and whether any event was in it.

        A failure found behind good deltas is left in ``failure`` for after they are delivered.
        """
        deltas: list[ChoiceDelta] = []
        try:
            events = self._parser.finish() if piece is None else self._parser.feed(piece)
        except LineTooLong:
            self._break(f"a line of more than {LINE_BYTES_MAX} bytes")
            return [], False
        for data in events:
            deltas += self._event(data)
            if self.failure is not None:
                return deltas, True
        if piece is None:
            self.end()
        return deltas, bool(events)

    def whole(self, body: bytes) -> list[ChoiceDelta]:
        """The deltas of an answer that came as one."""
        deltas = self._event(body)
        if self.failure is None:
            self.end()
        return deltas

    def end(self) -> None:
        """The body has ended."""
        self.ended = True
        answers = self._answers.values()
        if not answers or not all(answer.finished for answer in answers):
            self._break("the answer does not say why it ended")

    def usage(self, request: ChatRequest) -> Usage:
        """What the provider counted; before the answer's end, what it counted so far and an
        estimate of what was delivered."""
        counted = wire.buckets_of(self._counted)
        guess = self._delivered.estimate(request)
        if counted is None:
            return guess
        made = counted.output_tokens + counted.audio_output_tokens
        whole = self.failure is None and all(each.finished for each in self._answers.values())
        if whole and (made or not guess.output_tokens):
            return counted
        return msgspec.structs.replace(
            counted,
            output_tokens=max(counted.output_tokens, guess.output_tokens),
            reasoning_tokens=max(counted.reasoning_tokens, guess.reasoning_tokens),
            estimated=True,
        )

    def _event(self, data: bytes) -> list[ChoiceDelta]:
        try:
            reply = wire.reply_decoder.decode(data)
        except failures.DECODE_ERRORS as error:
            said = failures.clean(data[:512].decode("utf-8", "replace"), self._api_key)
            self._break(f"{str(error)[:120]}: {said}")
            return []
        if reply.error:
            self.failure = refusals.in_answer(reply.error, self._api_key)
            return []
        self._note(reply)
        deltas: list[ChoiceDelta] = []
        for candidate in reply.candidates or ():
            deltas += self._candidate(candidate)
        feedback = reply.prompt_feedback
        if not self._answers and feedback is not None and feedback.block_reason:
            self.failure = refusals.blocked(feedback.block_reason)
            self.failure.usage = wire.buckets_of(self._counted)
        return deltas

    def _note(self, reply: wire.WireReply) -> None:
        self.started = True
        given = reply.response_id or ""
        if not self.upstream_id and len(given) <= wire.ID_LENGTH_MAX and given.isprintable():
            self.upstream_id = given
        if reply.usage_metadata != wire.NULL:
            self._counted = wire.merged(self._counted, wire.usage_of(reply.usage_metadata))

    def _candidate(self, candidate: wire.WireCandidate) -> list[ChoiceDelta]:
        if not 0 <= candidate.index < _CANDIDATES_MAX:
            self._break(f"an answer with the index {candidate.index}")
            return []
        answer = self._answers.get(candidate.index)
        if answer is None:
            answer = Answer(candidate.index, self.upstream_id or self._seed)
            self._answers[candidate.index] = answer
        broken = candidate.finish_reason in wire.BROKEN and not answer.finished
        if broken:
            told = candidate.finish_reason
            candidate.finish_reason = None
        deltas = answer.take(candidate)
        for part in deltas:
            self._delivered.add(part.delta)
        if broken and self.failure is None:
            self.failure = AdapterError(
                FailureKind.UPSTREAM, "the model's call of a tool went wrong", detail=f"{told}"
            )
            self.failure.usage = wire.buckets_of(self._counted)
        return deltas

    def _break(self, detail: str) -> None:
        self.failure = AdapterError(
            FailureKind.PROTOCOL, "the provider's answer cannot be read", detail=detail
        )
