"""Where a text stands in a GBNF grammar: which tokens may follow.

llama.cpp's grammars are exact about characters and dear for a whole vocabulary (10 ms and more), so
they are asked little: about one token, or about those of which no beginning is impossible. Two
things are added to be sure of the text and not only of the tokens: control tokens never count as
the text of their names, and bytes must be UTF-8 in its strict form.
"""

import codecs
import re
import time
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.llama.candidates import Desk
from local_runtime.engines.llama.native import Model
from local_runtime.engines.llama.vocabulary import Vocabulary

# Token references, and negated classes with characters beyond ASCII: for both, a token may be
# allowed although its first bytes alone are not.
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|#[^\n]*|[<!]')
_BEYOND = re.compile(r"[^\x00-\x7f]|\\x[89a-fA-F]|\\u(?!00[0-7])|\\U(?!000000[0-7])")

ACCEPT_NS_MAX = 300_000_000  # of processor time; usually it is a hundredth of a millisecond


class GrammarRefused(Exception):
    """llama.cpp does not take the grammar; its log has the reason."""


class GrammarState:
    """One text's place in one grammar. ``close`` frees it."""

    def __init__(
        self,
        model: Model,
        vocabulary: Vocabulary,
        desk: Desk,
        grammar: str,
        *,
        spoken: frozenset[int] = frozenset(),
    ) -> None:
        """``spoken``: control tokens that count as the text of their names.

        Raises GrammarRefused.
        """
        self._grammar: Any = llama_cpp.llama_sampler_init_grammar(
            model.vocab, grammar.encode("utf-8"), b"root"
        )
        if not self._grammar:
            raise GrammarRefused
        self._vocabulary = vocabulary
        self._mute = vocabulary.mute - spoken
        self._spoken = np.array(sorted(spoken), dtype=np.intp)
        self._desk = desk
        self._end_tokens = model.end_tokens
        self._verdicts = np.zeros(model.vocab_size, dtype=np.bool_)
        self._hard = any(_is_hard(part[0]) for part in _PART.finditer(grammar))
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self.hopeless = False  # its text can be read in too many ways
        self._pending = False  # the text ends in the middle of a character

    def allows(self, token: int) -> bool:
        """Whether ``token`` may follow."""
        if token in self._mute or not self._is_text(token):
            return False
        return self._desk.passes(self._grammar, token)

    def allowed(self) -> NDArray[np.intp]:
        """All tokens that may follow, in no order."""
        vocabulary, passing = self._vocabulary, self._desk.passing
        found = [
            passing(self._grammar, vocabulary.end_tokens),
            passing(self._grammar, self._spoken),
        ]
        open_ = vocabulary.written
        if not self._hard:
            # What begins with something impossible need not be asked about.
            for size, prefixes in enumerate(vocabulary.prefixes, start=1):
                short = vocabulary.sizes[open_] == size
                passed = passing(self._grammar, open_[short])
                found.append(passed)
                open_ = open_[~short]
                prefix = prefixes[open_]
                self._verdicts[passed] = True
                open_ = open_[(prefix < 0) | self._verdicts[prefix]]
                self._verdicts[passed] = False
        found.append(passing(self._grammar, open_))
        every = np.concatenate(found)
        if self._pending:
            texts = [token for token in every.tolist() if self._is_text(token)]
            return np.array(texts, dtype=np.intp)
        return np.setdiff1d(every, vocabulary.crooked, assume_unique=True)

    @property
    def may_end(self) -> bool:
        """Whether the text is complete as it is."""
        return any(self._desk.passes(self._grammar, token) for token in self._end_tokens)

    def accept(self, token: int) -> None:
        """``token``, which is allowed, is the next of the text."""
        if token in self._end_tokens:
            return
        self._utf8.decode(self._vocabulary.pieces[token])
        self._pending = bool(self._utf8.getstate()[0])
        begun_ns = time.thread_time_ns()
        llama_cpp.llama_sampler_accept(self._grammar, token)
        # The readings of a text that a grammar allows can multiply with every token.
        self.hopeless = time.thread_time_ns() - begun_ns > ACCEPT_NS_MAX

    def _is_text(self, token: int) -> bool:
        piece = self._vocabulary.pieces[token]
        if token in self._end_tokens:
            return not self._pending
        if piece.isascii():
            return not self._pending
        state = self._utf8.getstate()
        try:
            self._utf8.decode(piece)
        except UnicodeDecodeError:
            return False
        finally:
            self._utf8.setstate(state)
        return True

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._grammar)
        self._grammar = None


def _is_hard(part: str) -> bool:
    """For one literal, class, comment or sign of a token of a grammar."""
    return part in {"<", "!"} or (part.startswith("[^") and _BEYOND.search(part) is not None)
