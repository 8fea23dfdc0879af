"""Bias and penalties on logits, as llama.cpp and OpenAI define them. Plain numpy."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray


class Tally:
    """How often each token has been seen, as arrays that grow; ``tokens`` are all different."""

    def __init__(self, seen: Iterable[int] = ()) -> None:
        self._place: dict[int, int] = {}
        self._tokens = np.zeros(64, dtype=np.intp)
        self._counts = np.zeros(64, dtype=np.float32)
        for token in seen:
            self.add(token)

    def add(self, token: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._tokens[place] = token
        self._counts[place] += 1

    @property
    def tokens(self) -> NDArray[np.intp]:
        return self._tokens[: len(self._place)]

    @property
    def counts(self) -> NDArray[np.float32]:
        return self._counts[: len(self._place)]


class Penalties:
    """What is added to or taken from logits before anything is chosen."""

    def __init__(
        self,
        *,
        bias: Mapping[int, float],
        repetition: float,
        frequency: float,
        presence: float,
        prompt: Iterable[int],
    ) -> None:
        """``repetition`` counts the prompt as well, as in transformers; OpenAI's two do not."""
        self._biased = np.fromiter(bias.keys(), dtype=np.intp, count=len(bias))
        self._bias = np.fromiter(bias.values(), dtype=np.float32, count=len(bias))
        self._repetition = np.float32(repetition)
        self._frequency = np.float32(frequency)
        self._presence = np.float32(presence)
        self._seen = Tally(prompt) if repetition != 1 else None
        self._written = Tally() if frequency or presence else None
        self.remembers = self._seen is not None or self._written is not None

    @property
    def idle(self) -> bool:
        """Whether nothing is ever changed."""
        return not len(self._biased) and not self.remembers

    @property
    def reach(self) -> list[NDArray[np.intp]]:
        """All tokens whose logits ``apply`` may change, some of them more than once."""
        if not self.remembers:
            return [self._biased]
        tallies = [tally.tokens for tally in (self._seen, self._written) if tally is not None]
        return [self._biased, *tallies]

    def accept(self, token: int) -> None:
        """This token was written."""
        for tally in (self._seen, self._written):
            if tally is not None:
                tally.add(token)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """In place: bias, then repetition (division, or multiplication below 0), then the rest."""
        if len(self._biased):
            logits[self._biased] += self._bias
        if self._seen is not None:
            tokens = self._seen.tokens
            found = logits[tokens]
            logits[tokens] = np.where(found > 0, found / self._repetition, found * self._repetition)
        if self._written is not None:
            logits[self._written.tokens] -= self._written.counts * self._frequency + self._presence
