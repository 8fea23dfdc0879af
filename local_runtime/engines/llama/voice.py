"""What one sequence says: its sampler, its text so far, and logprobs that wait for their text."""

from collections import deque
from weakref import WeakKeyDictionary

import msgspec

from local_runtime.engines.contract import RequestRefused, TokenLogprob, ToolCallPiece
from local_runtime.engines.llama.manner import Manner
from local_runtime.engines.llama.native import Context, Model
from local_runtime.engines.llama.reply_reader import Kind, ReplyReader, Segment
from local_runtime.engines.llama.sampling import Sampler
from local_runtime.engines.text import Characters, StopFilter

_PLAIN = Manner()
_TAKEN_MAX = 1_000
_taken: WeakKeyDictionary[Model, set[int]] = WeakKeyDictionary()
_NOTHING_MORE = 'root ::= ""\n'


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the client may see of an answer after one more token."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallPiece] | None = None
    logprobs: list[TokenLogprob] | None = None


class Voice:
    """From logits to what the client may see. ``close`` frees the sampler.

    Stop strings and logprobs are about what is said: thoughts and calls have none.
    """

    def __init__(
        self, model: Model, sampler: Sampler, stops: list[str], manner: Manner = _PLAIN
    ) -> None:
        """Raises RequestRefused when llama.cpp does not take a grammar; then nothing has to be
        freed but the sampler.
        """
        self._model = model
        self._sampler = sampler
        self._manner = manner
        self._characters = Characters()
        self._stop = StopFilter(stops)
        self._reader: ReplyReader | None = None if manner.plain else manner.reader()
        self._held_to_call = False
        self._lost = False  # the text has left the grammar that it is to be of
        # Control tokens that belong to the form of a call count as the text of their names.
        self._marks = _marks(model, manner)
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()
        self._seen = 0  # characters decoded
        self._segments: deque[tuple[int, int | None]] = deque()
        self._sorted_out = 0  # characters of which it is known what they are
        self._said = 0  # those of them that are content
        self._try_grammars()
        if manner.grammar is not None and manner.thinking is None:
            self._constrain(manner.grammar)

    def _try_grammars(self) -> None:
        """That llama.cpp takes a grammar must be known before the answer has begun."""
        manner = self._manner
        later = [manner.calls.whole] if manner.calls is not None and not manner.forced else []
        if manner.grammar is not None and manner.thinking is not None:
            later.append(manner.grammar)
        taken = _taken.setdefault(self._model, set())
        for grammar in later:
            if hash(grammar) not in taken:
                self._constrain(grammar)
                self._sampler.release()
                if len(taken) >= _TAKEN_MAX:
                    taken.clear()
                taken.add(hash(grammar))

    def _constrain(self, grammar: str) -> None:
        self._sampler.constrain(grammar, param=self._manner.param, spoken=frozenset(self._marks))

    def choose(self, context: Context, row: int) -> int | None:
        """The next token; None where a grammar leaves none. Its logprob is kept if asked for."""
        if self._lost:
            return None
        token = self._sampler.sample(context, row)
        if token is None or token in self._model.end_tokens:
            return token
        logprob = self._sampler.logprob(context, row, token)
        if logprob is not None:
            self._waiting.append((-1, logprob))
        return token

    def say(self, token: int) -> Said:
        """What may be shown now, and the logprobs of the tokens whose text has been shown."""
        data = self._marks.get(token) or self._model.piece(token)
        text = self._characters.push(data)
        self._seen += len(text)
        if self._waiting and self._waiting[-1][0] < 0:
            self._waiting[-1] = (self._seen, self._waiting[-1][1])
        if self._reader is None:
            self._sorted_out = self._said = self._seen
            text = self._stop.push(text)
            return Said(text=text, logprobs=self._shown() if self._waiting else None)
        was_thinking = self._reader.thinking
        said = self._sort(self._reader.push(text))
        self._hold(was_thinking)
        return said

    def finish(self) -> Said:
        """What was held back for a stop string, or a call, that did not come. Once, at the end."""
        if self._reader is None:
            return Said(text=self._stop.flush(), logprobs=self._shown())
        return self._sort(self._reader.finish(), last=True)

    def finish_reason(self, reason: str) -> str:
        """``reason`` (stop or length) in the words of the API, which tells calls of tools apart."""
        calls = self._reader is not None and self._reader.calls > 0
        return "tool_calls" if calls and reason == "stop" and not self._stop.stopped else reason

    @property
    def thinking(self) -> bool:
        """Whether the next token is part of the reasoning."""
        return self._reader is not None and self._reader.thinking

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete, or nothing can follow."""
        return self._stop.stopped

    def close(self) -> None:
        self._sampler.close()

    def _hold(self, was_thinking: bool) -> None:
        """Start or end the grammar that holds from here on."""
        reader, calls = self._reader, self._manner.calls
        assert reader is not None
        if self._manner.grammar is not None:
            if was_thinking and not reader.thinking:
                self._constrain(self._manner.grammar)
                # What came with the end of the thoughts must be the beginning of such a text.
                self._lost = not self._follow(reader.since_thought.lstrip())
            return
        if calls is None:
            return
        section = reader.section
        if self._held_to_call:
            if section is None and self._manner.parallel:
                self._sampler.release()
                self._held_to_call = False
        elif section is None and reader.calls and not self._manner.parallel:
            self._constrain(_NOTHING_MORE)
            self._held_to_call = True
        elif section is not None and not reader.settled:
            grammar, since = calls.opened, reader.since_opened
            if section.bare:
                if not section.named:
                    return
                grammar, since = calls.named(section.named), section.since_named
            reader.settled = True
            try:
                self._constrain(grammar)
            except RequestRefused:  # its rules were taken as part of another: never go on without
                self._lost = True
                return
            if self._follow(since):
                section.trusted = self._held_to_call = True

    def _follow(self, text: str) -> bool:
        """Take what has been written already into the grammar; without it where that is amiss."""
        tokens = self._model.tokenize(text, add_special=False, parse_special=False) if text else []
        return self._sampler.follow(tokens)

    def _sort(self, segments: list[Segment], *, last: bool = False) -> Said:
        text: list[str] = []
        reasoning: list[str] = []
        calls: list[ToolCallPiece] = []
        for segment in segments:
            self._sorted_out += len(segment.text)
            if segment.kind is Kind.CONTENT:
                self._said += len(segment.text)
                text.append(self._stop.push(segment.text))
            elif segment.kind is Kind.REASONING and not self._manner.hides_reasoning:
                reasoning.append(segment.text)
            elif segment.kind is Kind.CALL and not self._stop.stopped:
                _add(calls, segment.calls)
            if self._waiting:
                is_content = segment.kind is Kind.CONTENT
                self._segments.append((self._sorted_out, self._said if is_content else None))
        if last:
            text.append(self._stop.flush())
        return Said(
            text="".join(text),
            reasoning="".join(reasoning),
            tool_calls=calls or None,
            logprobs=self._shown(),
        )

    def _shown(self) -> list[TokenLogprob] | None:
        """Logprobs of tokens whose text is out; those of thoughts and calls are dropped."""
        shown = []
        while self._waiting and self._waiting[0][0] <= self._sorted_out:
            end = self._waiting[0][0]
            said: int | None = end
            if self._reader is not None:
                while self._segments and self._segments[0][0] < end:
                    self._segments.popleft()
                if self._segments:
                    until, until_said = self._segments[0]
                    said = None if until_said is None else until_said - (until - end)
            if said is not None and said > self._stop.characters_shown:
                break
            logprob = self._waiting.popleft()[1]
            if said is not None:
                shown.append(logprob)
        return shown or None


def _add(calls: list[ToolCallPiece], more: list[ToolCallPiece]) -> None:
    """Append parts of calls; those of one call that follow each other become one part."""
    for part in more:
        if calls and calls[-1].index == part.index and not part.id:
            arguments = calls[-1].arguments + part.arguments
            calls[-1] = msgspec.structs.replace(calls[-1], arguments=arguments)
        else:
            calls.append(part)


def _marks(model: Model, manner: Manner) -> dict[int, bytes]:
    """Control tokens of the model that are marks of this form, and their texts."""
    texts = {tags.opens for tags in manner.reasoning} | {tags.closes for tags in manner.reasoning}
    if manner.thinking is not None:
        texts |= {manner.thinking.opens, manner.thinking.closes}
    if manner.syntax is not None:
        texts |= set(manner.syntax.markers)
    found: dict[int, bytes] = {}
    for name in model.control_texts:
        if any(name in text for text in texts):
            tokens = model.tokenize(name, add_special=False, parse_special=True)
            if len(tokens) == 1 and tokens[0] not in model.end_tokens:
                found[tokens[0]] = name.encode()
    return found
