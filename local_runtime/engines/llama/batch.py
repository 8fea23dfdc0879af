"""One step's computation: rows into llama.cpp, tokens out, and the cells that both leave behind.

A row may carry drafted tokens behind the last sampled one. Each position's token is sampled as if
nothing had been drafted; as long as it is the drafted one, the next position counts too, and the
cells of what was guessed wrong are freed. So drafts change how fast an answer comes, never what it
says.
"""

from typing import NamedTuple

from local_runtime.engines.contract import TokenLogprob
from local_runtime.engines.llama.cells import Cells
from local_runtime.engines.llama.native import Context, Model
from local_runtime.engines.llama.scheduler import Row
from local_runtime.engines.llama.slots import Sequence, Work
from local_runtime.engines.llama.voice import Said, Voice


class EngineBroken(Exception):
    """llama.cpp failed in a way that leaves its state unknown."""


class Spoken(NamedTuple):
    """One token of one sequence. ``said`` None: its grammar allows no token of this model."""

    work: Work
    sequence: Sequence
    said: Said | None
    reason: str | None = None


class Steps:
    """Carries rows out. ``voices`` has every sequence's voice."""

    def __init__(
        self, model: Model, context: Context, cells: Cells, voices: dict[Sequence, Voice]
    ) -> None:
        self._model = model
        self._context = context
        self._cells = cells
        self._voices = voices

    def run(self, rows: list[Row]) -> list[Spoken]:
        """Compute all rows in one batch, and sample where a row says so."""
        spoken: list[Spoken] = []
        for row, last in self._compute(rows):
            sequence = row.sequence
            if row.generates and not sequence.drafted and len(row.work.sequences) == 1:
                spoken.append(self._say(row.work, sequence, last)[1])  # most rows, most of the time
                continue
            for sequence in self._sampling_now(row):
                drafted = sequence.drafted if sequence is row.sequence else []
                spoken += self._sample(row.work, sequence, drafted, last)
                sequence.drafted = []
        return spoken

    def _compute(self, rows: list[Row]) -> list[tuple[Row, int]]:
        """Each row with the batch index of its last token."""
        if self._context.streams > 1:
            # Caches that lie beside each other are computed in one go if they come in order.
            rows = sorted(rows, key=lambda row: row.sequence.slot or 0)
        indexed = []
        for row in rows:
            sequence = row.sequence
            assert sequence.slot is not None
            own = sequence.tokens[sequence.computed : sequence.computed + row.tokens]
            tokens = own + sequence.drafted if row.generates else own
            outputs = len(tokens) if row.generates else int(row.samples)
            last = self._context.add(
                tokens, sequence.position(sequence.computed), sequence.slot, outputs=outputs
            )
            indexed.append((row, last))
        result = self._context.decode()
        if result != 0:
            raise EngineBroken(f"llama_decode returned {result} for {len(rows)} rows")
        for row, _ in indexed:
            row.sequence.computed += row.tokens
            row.sequence.path = self._cells.extend(row.sequence.path, row.tokens)
        return indexed

    def _sampling_now(self, row: Row) -> list[Sequence]:
        """The sequences that continue from this row: its own, and those that start where it is."""
        work, leader = row.work, row.sequence
        followers = []
        if leader is work.live[0] and leader.computed >= work.prompt_tokens:
            followers = [other for other in work.live[1:] if not other.computed]
        for other in followers:
            assert leader.slot is not None and other.slot is not None
            end = leader.position(work.prompt_tokens)
            self._context.share(leader.slot, other.slot, end)
            other.path = self._cells.fork(leader.path, work.prompt_tokens)
            other.computed = work.prompt_tokens
        ready = [leader, *followers] if row.samples else []
        return [sequence for sequence in ready if sequence.pending <= 0]

    def _sample(
        self, work: Work, sequence: Sequence, drafted: list[int], last: int
    ) -> list[Spoken]:
        """One token, and one more for each drafted token that was right."""
        spoken: list[Spoken] = []
        for at in range(len(drafted) + 1):
            token, one = self._say(work, sequence, last - len(drafted) + at)
            spoken.append(one)
            right = at < len(drafted) and token == drafted[at]
            if sequence.ended or one.said is None or not right:
                break
        if drafted:
            self._take_back(sequence)
        return spoken

    def _take_back(self, sequence: Sequence) -> None:
        """Free the cells of wrong guesses: all behind the last token that is certain."""
        certain = min(sequence.computed, len(sequence.tokens) - 1)
        if certain < sequence.computed:
            assert sequence.slot is not None
            self._context.truncate(sequence.slot, sequence.position(certain))
            sequence.path = self._cells.truncate(sequence.path, certain)
            sequence.computed = certain

    def _say(self, work: Work, sequence: Sequence, at: int) -> tuple[int | None, Spoken]:
        """Choose a token: what may be shown of it, and why the answer ends, if it does."""
        voice = self._voices[sequence]
        thinking = voice.thinking
        token = voice.choose(self._context, at)
        if token is None:
            return None, Spoken(work, sequence, None)
        if thinking:
            work.reasoning_tokens += 1
        else:
            work.output_tokens += 1
        sequence.tokens.append(token)
        if token in self._model.end_tokens:
            sequence.ended = True
            return token, Spoken(work, sequence, voice.finish(), voice.finish_reason("stop"))
        said = voice.say(token)
        if voice.stopped:
            sequence.ended = True
            rest = joined(said, voice.finish())
            return token, Spoken(work, sequence, rest, voice.finish_reason("stop"))
        if len(sequence.tokens) < sequence.tokens_max:
            return token, Spoken(work, sequence, said)
        sequence.ended = True
        rest = joined(said, voice.finish())
        return token, Spoken(work, sequence, rest, voice.finish_reason("length"))


def joined(one: Said, other: Said) -> Said:
    """Both, one after the other."""
    logprobs: list[TokenLogprob] = [*(one.logprobs or []), *(other.logprobs or [])]
    return Said(
        text=one.text + other.text,
        reasoning=one.reasoning + other.reasoning,
        tool_calls=[*(one.tool_calls or []), *(other.tool_calls or [])] or None,
        logprobs=logprobs or None,
    )
