"""Logprobs of tokens under the model itself, before any sampling parameter."""

import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import TokenLogprob, TopToken
from local_runtime.engines.llama.candidates import Selection
from local_runtime.engines.llama.native import Model


class Logprobs:
    """For one sequence: the chosen token's, and those of the ``count`` likeliest."""

    def __init__(self, model: Model, count: int) -> None:
        self._model = model
        self._count = count
        self._selection = Selection(count)

    def of(self, token: int, logits: NDArray[np.float32]) -> TokenLogprob:
        """``logits`` has the shape (vocabulary,)."""
        whole = log_of_sum(logits)
        chosen = self._named(token, float(logits[token]) - whole)
        top: list[TopToken] = []
        if self._count:
            tokens = self._selection.of(logits)
            best = tokens[np.argsort(-logits[tokens], kind="stable")[: self._count]]
            top = [self._named(int(other), float(logits[other]) - whole) for other in best]
        return TokenLogprob(token=chosen.token, bytes=chosen.bytes, logprob=chosen.logprob, top=top)

    def _named(self, token: int, logprob: float) -> TopToken:
        piece = self._model.piece(token)
        return TopToken(piece.decode("utf-8", "replace"), list(piece), logprob)


def log_of_sum(logits: NDArray[np.float32]) -> float:
    """The logarithm of the sum of their exponentials."""
    best = logits.max()
    return float(best) + float(np.log(np.exp(logits - best).sum(dtype=np.float64)))
