"""A small model of the same vocabulary that guesses what a large one will say next.

It writes what it finds likeliest, for all sequences at once, one token after the other, and stops
where it is not sure. Its cache follows the sequences: what turned out wrong is taken back.
"""

import time
from collections.abc import Iterable

import numpy as np

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.llama import native
from local_runtime.engines.llama.drafts import DRAFT_TOKENS_MAX
from local_runtime.engines.llama.sizing import Size
from local_runtime.engines.llama.slots import Sequence

READ_TOKENS_MAX = 256  # of prompts, in one step of the large model
_SURE = 0.4
_USUAL_SHARE = 0.7
_WEIGHT = 0.1
_TRY_EVERY = 64  # steps, when it has not been worth it
_TRIED_TOKENS = 2


class DraftModel:
    """Weights, a cache, and a record of how good and how dear its guesses are."""

    def __init__(self, path: str, target: native.Model, size: Size, sequences_max: int) -> None:
        """``size`` is that of the large model's context. Raises EngineLoadError."""
        self._model = native.Model(
            path,
            lambda _: None,
            gpu_layers=size.gpu_layers and 10_000,
            copied=size.copied,  # it is smaller than the large model
        )
        try:
            if not self._model.goes_back:
                raise EngineLoadError("draft: this model's memory cannot go back")
            if not _same_words(self._model, target):
                raise EngineLoadError("draft: this model has another vocabulary than the large one")
            self._context = native.Context(self._model, size, sequences=sequences_max)
        except EngineLoadError:
            self._model.close()
            raise
        self._free = list(range(sequences_max - 1, -1, -1))
        self._slots: dict[Sequence, int] = {}
        self._written: dict[Sequence, list[int]] = {}
        self._room = min(READ_TOKENS_MAX, size.batch_tokens)
        self._share = _USUAL_SHARE
        self._token_ns = 0.0
        self._steps = 0

    @property
    def share(self) -> float:
        """How many of its guesses are right."""
        return self._share

    @property
    def token_ns(self) -> float:
        """How long one more token for all sequences takes."""
        return self._token_ns

    def note(self, guessed: int, right: int) -> None:
        """Of so many guesses in a row, the first so many were right."""
        for at in range(min(guessed, right + 1)):
            self._share += _WEIGHT * ((at < right) - self._share)

    def due(self) -> int:
        """How many tokens to guess now and then although it has not been worth it."""
        self._steps += 1
        return _TRIED_TOKENS if self._steps % _TRY_EVERY == 0 else 0

    def guesses(
        self, sequences: list[Sequence], count: int
    ) -> dict[Sequence, tuple[list[int], list[float]]]:
        """At most ``count`` tokens for each, and how likely each and all before it are right."""
        rows = self._read(sequences)
        found: dict[Sequence, tuple[list[int], list[float]]] = {}
        for _ in range(min(count, DRAFT_TOKENS_MAX)):
            following: dict[Sequence, int] = {}
            for sequence, row in rows.items():
                logits = self._context.logits(row)
                token = int(logits.argmax())
                share = float(1 / np.exp(logits - logits[token]).sum(dtype=np.float64))
                tokens, likely = found.setdefault(sequence, ([], []))
                whole = share * (likely[-1] if likely else 1.0)
                if whole < _SURE or token in self._model.end_tokens:
                    continue
                tokens.append(token)
                likely.append(whole)
                following[sequence] = token
            if not following or len(next(iter(found[s][0] for s in following))) >= count:
                break
            begun_ns = time.monotonic_ns()
            rows = self._continue(following)
            took_ns = time.monotonic_ns() - begun_ns
            self._token_ns += (took_ns - self._token_ns) * (_WEIGHT if self._token_ns else 1)
        return {sequence: guess for sequence, guess in found.items() if guess[0]}

    def keep_only(self, live: Iterable[Sequence]) -> None:
        """Forget all other sequences."""
        for sequence in self._slots.keys() - set(live):
            slot = self._slots.pop(sequence)
            self._context.forget(slot)
            del self._written[sequence]
            self._free.append(slot)

    def _read(self, sequences: list[Sequence]) -> dict[Sequence, int]:
        """Catch up with what was written; the batch index of each that has."""
        room = self._room
        rows: dict[Sequence, int] = {}
        for sequence in sequences:
            if sequence not in self._slots:
                if not self._free:
                    continue
                self._slots[sequence] = self._free.pop()
                self._written[sequence] = []
            slot, written, tokens = self._slots[sequence], self._written[sequence], sequence.tokens
            same = min(len(written), len(tokens) - 1)
            start = max(0, same - 2 * DRAFT_TOKENS_MAX)
            while start < same and written[start] == tokens[start]:
                start += 1
            if start < len(written):
                self._context.truncate(slot, start)
                del written[start:]
            new = tokens[start : start + room]
            if not new or min(new) < 0:  # pictures mean nothing to it
                continue
            room -= len(new)
            done = start + len(new) == len(tokens)
            row = self._context.add(new, start, slot, outputs=int(done))
            written += new
            if done:
                rows[sequence] = row
        return rows if room < self._room and self._decode() else {}

    def _continue(self, following: dict[Sequence, int]) -> dict[Sequence, int]:
        rows = {}
        for sequence, token in following.items():
            written = self._written[sequence]
            rows[sequence] = self._context.add(
                [token], len(written), self._slots[sequence], outputs=1
            )
            written.append(token)
        return rows if self._decode() else {}

    def _decode(self) -> bool:
        """False: there was no room, and nothing is left of what was read."""
        if self._context.decode() == 0:
            return True
        self.keep_only(())
        return False

    def close(self) -> None:
        self._context.close()
        self._model.close()


def _same_words(one: native.Model, other: native.Model) -> bool:
    if one.vocab_size != other.vocab_size or one.end_tokens != other.end_tokens:
        return False
    return all(one.piece(token) == other.piece(token) for token in range(one.vocab_size))
