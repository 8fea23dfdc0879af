"""From logits to the candidates that a chain of samplers works on, as few of them as is exact.

llama.cpp's samplers take an array of (token, logit, probability). Building it for a whole
vocabulary and sorting it costs more than the choice itself, so only tokens that the chain can
choose are put into it: with ``top_k`` those are found by comparing logits with a floor that so many
are sure to reach. All that is as long as the vocabulary is written into memory that is there
already: the system takes five times as long to find fresh memory as the comparison takes.
"""

import ctypes
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)

_WIDER = 1.5
_GAP_START = 4.0
_GAP_MIN = 1e-3
_TRIES = 6
_MANY = 4  # times as many candidates as needed: the next floor is set higher
_GROUPS_MIN = 512
_GROUPS_EACH = 8  # so many groups for each token wanted: then two of them rarely share one


class Selection:
    """The ``count`` likeliest tokens, and as few others as can be told cheaply.

    Of as many groups of tokens as one likes, the ``count``-th highest best logit is reached by
    ``count`` tokens at least, so none of the likeliest lies below it; and with many more groups
    than that, hardly another one reaches it.
    """

    def __init__(self, count: int, above: NDArray[np.bool_] | None = None) -> None:
        """``above``: memory for one mark per token, which others may use in between."""
        self._count = count
        self._above = above
        self._groups = max(_GROUPS_MIN, _GROUPS_EACH * count)
        self._best = np.empty(self._groups, dtype=np.float32)
        self.floor = -np.inf  # what the tokens found last have at least, as far as is known

    def of(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """Tokens in order of id, among them the ``count`` likeliest (all, if there are fewer)."""
        size, groups = len(logits), self._groups
        self.floor = -np.inf
        if self._count >= size:
            return np.arange(size)
        if size < 2 * groups:
            return np.sort(np.argpartition(logits, -self._count)[-self._count :])
        if self._above is None or len(self._above) != size:
            self._above = np.empty(size, dtype=np.bool_)
        # A group is every so many-th token, so that whole rows are compared at once. The few tokens
        # behind the last whole row are in no group, which can only lower the floor.
        rows = logits[: size - size % groups].reshape(-1, groups)
        best = np.maximum.reduce(rows, axis=0, out=self._best)
        at = groups - self._count
        best.partition(at)
        self.floor = best.item(at)
        reached = np.greater_equal(logits, best[at], out=self._above)
        found: NDArray[np.intp] = reached.nonzero()[0]
        return found


class Nucleus:
    """top_p of a whole distribution: the likeliest tokens that together have the share ``p``."""

    floor = -np.inf  # as of ``Selection``

    def __init__(self, p: float) -> None:
        self._p = p
        self._gap = _GAP_START

    def of(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """The tokens, likeliest first; at least one."""
        best = logits.max()
        weights = np.exp(logits - best)
        enough = self._p * float(weights.sum(dtype=np.float64))
        for _ in range(_TRIES):
            found = (logits >= best - np.float32(self._gap)).nonzero()[0]
            if float(weights[found].sum(dtype=np.float64)) >= enough:
                break
            self._gap *= _WIDER
        else:
            found = np.arange(len(logits))
            self._gap = _GAP_START
        found = found[np.argsort(-weights[found], kind="stable")]
        sums = np.cumsum(weights[found], dtype=np.float64)
        kept = int(np.searchsorted(sums, enough)) + 1
        if len(found) > _MANY * kept:
            last = float(logits[found[min(kept, len(found)) - 1]])
            self._gap = max(_GAP_MIN, (float(best) - last) * _WIDER)
        chosen: NDArray[np.intp] = found[:kept]
        return chosen


def possible(logits: NDArray[np.float32]) -> NDArray[np.intp]:
    """All tokens that are not ruled out."""
    return (logits > -np.inf).nonzero()[0]


class Desk:
    """Memory that candidates are laid out in, one array for all sequences of a model."""

    def __init__(self, vocab_size: int) -> None:
        self.marks = np.empty(vocab_size, dtype=np.bool_)  # for ``Selection``
        self._data = np.zeros(vocab_size, dtype=TOKEN_DATA)
        self._ids, self._logits = self._data["id"], self._data["logit"]
        self._pointer = self._data.ctypes.data_as(llama_cpp.llama_token_data_p)
        self._array: Any = llama_cpp.llama_token_data_array()
        self._by_reference = ctypes.byref(self._array)
        self._one: Any = llama_cpp.llama_token_data()
        self._question: Any = llama_cpp.llama_token_data_array()
        self._question_by_reference = ctypes.byref(self._question)

    def choose(self, chain: Any, tokens: NDArray[np.intp], logits: NDArray[np.float32]) -> int:
        """The token that ``chain`` picks out of ``tokens`` (at least one) with ``logits``."""
        self._lay_out(tokens, logits)
        llama_cpp.llama_sampler_apply(chain, self._by_reference)
        array = self._array
        return int(array.data[array.selected].id)  # a sampler may have moved `data`

    def passing(self, grammar: Any, tokens: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of ``tokens`` that ``grammar`` allows next."""
        if not len(tokens):
            return tokens
        self._lay_out(tokens, np.float32(0))
        llama_cpp.llama_sampler_apply(grammar, self._by_reference)
        kept: NDArray[np.intp] = tokens[self._logits[: len(tokens)] == 0]
        return kept

    def passes(self, grammar: Any, token: int) -> bool:
        """Whether ``grammar`` allows this one token next."""
        self._one.id, self._one.logit = token, 0.0
        question = self._question
        question.data, question.size, question.selected = ctypes.pointer(self._one), 1, -1
        llama_cpp.llama_sampler_apply(grammar, self._question_by_reference)
        return bool(self._one.logit == 0.0)

    def _lay_out(self, tokens: NDArray[np.intp], logits: NDArray[np.float32] | np.float32) -> None:
        count = len(tokens)
        self._ids[:count] = tokens
        self._logits[:count] = logits
        array = self._array
        array.data, array.size, array.selected, array.sorted = self._pointer, count, -1, False
