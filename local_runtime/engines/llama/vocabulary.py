"""What samplers and grammars need to know about a model's tokens, found once for each model."""

import codecs
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.llama.native import Model

PREFIX_BYTES_MAX = 3


class Vocabulary:
    """Tokens by what they write.

    ``mute`` are the tokens, ends of an answer aside, of which no part may stand in a text that a
    grammar describes: llama.cpp's grammars take a control token for the text of its name, and the
    client sees nothing of it. ``crooked`` are those whose bytes cannot begin a UTF-8 text.
    ``written``: all that write something, ends aside. ``sizes``: bytes of each token.
    ``prefixes[n - 1]``: for each token the one that writes the first ``n`` bytes of its text, -1
    where there is none.
    """

    def __init__(self, model: Model) -> None:
        pieces = [model.piece(token) for token in range(model.vocab_size)]
        self.pieces = pieces
        self.end_tokens: NDArray[np.intp] = np.array(sorted(model.end_tokens), dtype=np.intp)
        self.mute = frozenset(
            token
            for token, piece in enumerate(pieces)
            if not piece and token not in model.end_tokens
        )
        self.crooked: NDArray[np.intp] = np.array(
            [token for token, piece in enumerate(pieces) if not _begins_text(piece)], dtype=np.intp
        )
        self.written: NDArray[np.intp] = np.array(
            [
                token
                for token, piece in enumerate(pieces)
                if piece and token not in model.end_tokens
            ],
            dtype=np.intp,
        )
        self.sizes: NDArray[np.intp] = np.array([len(piece) for piece in pieces], dtype=np.intp)
        writer = {pieces[token]: token for token in self.written.tolist()}
        self.prefixes: list[NDArray[np.intp]] = [
            np.array(
                [writer.get(piece[:count], -1) if len(piece) > count else -1 for piece in pieces],
                dtype=np.intp,
            )
            for count in range(1, PREFIX_BYTES_MAX + 1)
        ]


def _begins_text(piece: bytes) -> bool:
    if piece.isascii():
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(piece)
    except UnicodeDecodeError:
        return False
    return True


_known: WeakKeyDictionary[Model, Vocabulary] = WeakKeyDictionary()


def vocabulary_of(model: Model) -> Vocabulary:
    """The one of this model; reading it takes some hundred milliseconds the first time."""
    found = _known.get(model)
    if found is None:
        found = _known[model] = Vocabulary(model)
    return found
