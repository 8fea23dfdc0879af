"""A request to encode on its way in: checked, and its texts turned into tokens.

Tokenising megabytes takes seconds, in which nobody would get an answer, so it is done a part at a
time, between the batches. Nothing of a request is computed before all of its texts are known to
fit: half an answer is worth nothing.
"""

import re
from collections.abc import Collection, Sequence
from typing import Protocol

from local_runtime.engines.contract import EncodeTask, EngineRequest, RequestRefused
from local_runtime.engines.text_batch import Text, Work
from plugins.contract import FailureKind

TEXTS_MAX = 2048  # OpenAI's own limit for a list of inputs
ANSWER_BYTES_MAX = 32 * 1024 * 1024  # half a frame, see placement/frames.py
_BYTES_PER_TOKEN_MAX = 64  # what is longer is no text; it is not even tokenised
_BYTES_PER_VALUE = 4
_CUTS_MAX = 32
_SLOTS = re.compile(r"(\{query\}|\{document\})")


class Tokeniser(Protocol):
    """A model's vocabulary. ``control_texts``: what of it a template may write and a caller not."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def control_texts(self) -> Collection[str]: ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """``add_special``: with what stands before and behind every text."""
        ...


class Intake:
    """Turns requests into work for one model."""

    def __init__(
        self,
        model: Tokeniser,
        *,
        context_length: int,
        size: int,
        is_rank: bool,
        pair_ends: tuple[int, ...],
        pair_middle: tuple[int, ...],
        rank_template: str | None,
    ) -> None:
        """``pair_ends`` are the tokens behind a query and a document, ``pair_middle`` those between
        them; ``rank_template`` is the model's own text with places for both.
        """
        self._model = model
        self._context_length = context_length
        self._bytes_max = context_length * _BYTES_PER_TOKEN_MAX
        self._size = size
        self._is_rank = is_rank
        self._texts_max = TEXTS_MAX
        if not is_rank:
            self._texts_max = min(TEXTS_MAX, ANSWER_BYTES_MAX // (size * _BYTES_PER_VALUE))
        self._begin, self._end = _around(model)
        self._pair_ends = list(pair_ends or self._end)
        self._pair_middle = list(pair_middle)
        self._template = _SLOTS.split(rank_template) if rank_template is not None else None
        controls = sorted(model.control_texts, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, controls))) if controls else None
        self._next_number = 0

    def take(self, asked: EngineRequest) -> "Draft":
        """What can be told without tokenising. Raises RequestRefused."""
        task = asked.encode
        if task is None:
            raise RequestRefused(
                "This model holds no conversations.", param="model", kind=FailureKind.NOT_FOUND
            )
        self._check(task)
        work = Work(
            request_id=asked.request_id,
            number=self._next_number,
            key=asked.fairness_key,
            compute_ns_max=asked.compute_ns_max,
            size=task.size,
            is_rank=self._is_rank,
            texts=len(task.texts),
        )
        self._next_number += 1
        return Draft(task, work)

    def _check(self, task: EncodeTask) -> None:
        if task.query is None and self._is_rank:
            raise RequestRefused(
                "This model scores documents against a query and makes no vectors.",
                param="model",
                kind=FailureKind.NOT_FOUND,
            )
        if task.query is not None and not self._is_rank:
            raise RequestRefused(
                "This model makes vectors and has no head that scores a document against a query."
                " Choose a reranking model, or compare vectors yourself.",
                param="model",
                kind=FailureKind.NOT_FOUND,
            )
        name = "documents" if self._is_rank else "input"
        if not 1 <= len(task.texts) <= self._texts_max:
            raise RequestRefused(
                f"{name} holds {len(task.texts)} texts; 1 to {self._texts_max} go into one request"
                " to this model. Send several requests.",
                param=name,
            )
        if task.query == "":
            raise RequestRefused("query must not be empty.", param="query")
        if task.size is not None and not 1 <= task.size <= self._size:
            raise RequestRefused(
                f"dimensions: this model's vectors have {self._size} numbers, so {task.size} cannot"
                f" be had. Ask for 1 to {self._size}, or leave it out.",
                param="dimensions",
            )

    def advance(self, draft: "Draft", bytes_max: int) -> int:
        """Tokenise the draft's next texts, about ``bytes_max`` of them; how many bytes those were.

        Raises RequestRefused.
        """
        seen = 0
        texts = draft.task.texts
        while draft.at < len(texts) and seen < bytes_max:
            text = texts[draft.at]
            seen += 1 + (len(text) * 4 if isinstance(text, list) else len(text.encode()))
            tokens = self._tokens(draft.task, draft.at)
            draft.work.waiting.append(Text(draft.work, draft.at, tokens))
            draft.work.tokens += len(tokens)
            draft.at += 1
        return seen

    def _tokens(self, task: EncodeTask, index: int) -> list[int]:
        text = task.texts[index]
        if task.query is not None:
            return self._pair(task, task.query, text, f"documents[{index}]")
        name = f"input[{index}]"
        if isinstance(text, list):
            return self._given(text, name, truncate=task.truncate)
        if not text:
            raise RequestRefused(
                f"{name} is empty; there is nothing to make a vector of.", param=name
            )
        inner = self._plain(self._bounded(text, name, truncate=task.truncate))
        room = self._context_length - len(self._begin) - len(self._end)
        if len(inner) > room:
            if not task.truncate:
                raise self._too_long(name, f"{len(inner) + self._context_length - room} tokens")
            del inner[room:]
        return [*self._begin, *inner, *self._end]

    def _given(self, tokens: list[int], name: str, *, truncate: bool) -> list[int]:
        """Tokens that the caller made: taken as they are."""
        if not tokens:
            raise RequestRefused(
                f"{name} is empty; there is nothing to make a vector of.", param=name
            )
        wrong = next((token for token in tokens if not 0 <= token < self._model.vocab_size), None)
        if wrong is not None:
            raise RequestRefused(
                f"{name} has the token {wrong}, and this model knows those from 0 to"
                f" {self._model.vocab_size - 1}. Tokens are the model's own: send text instead.",
                param=name,
            )
        if len(tokens) > self._context_length and not truncate:
            raise self._too_long(name, f"{len(tokens)} tokens")
        return tokens[: self._context_length]

    def _pair(
        self, task: EncodeTask, query: str, document: str | list[int], name: str
    ) -> list[int]:
        """A query and a document as the model was trained to see them."""
        if isinstance(document, list):
            raise RequestRefused(f"{name} must be a text.", param=name)
        document = self._bounded(document, name, truncate=task.truncate)
        self._bounded(query, "query", truncate=False)
        if self._template is not None:
            return self._templated(query, document, name, truncate=task.truncate)
        first = [*self._begin, *self._plain(query), *self._pair_ends, *self._pair_middle]
        second = self._plain(document)
        room = self._context_length - len(first) - len(self._pair_ends)
        if room <= 0:
            raise self._too_long("query", f"{len(first)} tokens")
        if len(second) > room:
            if not task.truncate:
                whole = len(first) + len(second) + len(self._pair_ends)
                raise self._too_long(name, f"with the query {whole} tokens")
            del second[room:]
        return [*first, *second, *self._pair_ends]

    def _templated(self, query: str, document: str, name: str, *, truncate: bool) -> list[int]:
        assert self._template is not None
        for _ in range(_CUTS_MAX):
            slots = {"{query}": query, "{document}": document}
            tokens = self._guarded(
                [(part in slots, slots.get(part, part)) for part in self._template]
            )
            over = len(tokens) - self._context_length
            if over <= 0:
                return tokens
            if not truncate:
                raise self._too_long(name, f"with the query {len(tokens)} tokens")
            if not document:
                break
            # How many characters a token stands for differs; the last few are cut in small steps.
            document = document[: len(document) - max(over, len(document) * over // len(tokens))]
        raise self._too_long("query", "with the model's own words too long")

    def _guarded(self, parts: Sequence[tuple[bool, str]]) -> list[int]:
        """Tokens of the parts put together. Control tokens count in the template only: where the
        caller's own text looks like one, that text is tokenised apart, as plain text.
        """
        runs: list[tuple[bool, str]] = [(True, "")]
        for is_callers, part in parts:
            pieces = [part]
            if is_callers and self._control is not None:
                pieces = re.split(f"({self._control.pattern})", part)
            for number, piece in enumerate(pieces):
                special = number % 2 == 0
                if special and runs[-1][0]:
                    runs[-1] = (True, runs[-1][1] + piece)
                else:
                    runs.append((special, piece))
        tokens: list[int] = []
        for special, text in runs:
            tokens += self._model.tokenize(text, add_special=False, parse_special=special)
        return tokens

    def _plain(self, text: str) -> list[int]:
        return self._model.tokenize(text, add_special=False, parse_special=False)

    def _bounded(self, text: str, name: str, *, truncate: bool) -> str:
        """The text, unless it is so long that it cannot fit however it is tokenised."""
        data = text.encode()
        if len(data) <= self._bytes_max:
            return text
        if not truncate:
            raise self._too_long(name, f"{len(data)} bytes")
        return data[: self._bytes_max].decode("utf-8", "ignore")

    def _too_long(self, name: str, length: str) -> RequestRefused:
        return RequestRefused(
            f"{name} is too long: {length}, and this model reads at most {self._context_length}"
            " tokens at once. Split it, or set truncate to have it cut.",
            param=name,
            kind=FailureKind.CONTEXT_LENGTH,
        )


class Draft:
    """A request whose texts are being tokenised; ``at`` is the next one."""

    __slots__ = ("at", "task", "work")

    def __init__(self, task: EncodeTask, work: Work) -> None:
        self.task = task
        self.work = work
        self.at = 0

    @property
    def ready(self) -> bool:
        """Whether all texts are known to fit."""
        return self.at == len(self.task.texts)


def _around(model: Tokeniser) -> tuple[list[int], list[int]]:
    """The tokens that the vocabulary puts before and behind every text."""
    bare = model.tokenize("", add_special=True, parse_special=False)
    inner = model.tokenize("a", add_special=False, parse_special=False)
    whole = model.tokenize("a", add_special=True, parse_special=False)
    for before in range(len(whole) - len(inner) + 1):
        if whole[before : before + len(inner)] == inner:
            return whole[:before], whole[before + len(inner) :]
    return bare, []
