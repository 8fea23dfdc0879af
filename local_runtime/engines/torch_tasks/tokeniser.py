"""A model's ``tokenizer.json``, read by Hugging Face's tokenizers, as the intake wants it.

A caller's text is never read as control tokens, whatever is in it. The library is native code:
where it panics, that is an error of the file, or of the one request, not the end of the process.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple, TypeVar

import tokenizers

from local_runtime.engines.contract import EngineLoadError, RequestRefused

_UNKNOWN = ("[UNK]", "<unk>")
_T = TypeVar("_T")


class Pairs(NamedTuple):
    """How two texts are put together: the tokens between them, those behind them, and whether the
    second's are told to be another segment.
    """

    between: tuple[int, ...]
    end: tuple[int, ...]
    second_type: int


class HubTokeniser:
    """``vocab_size`` is the number of rows of the model's table."""

    control_texts: Collection[str] = ()

    def __init__(self, path: Path, vocab_size: int, *, lower: bool) -> None:
        """Raises EngineLoadError."""
        self.vocab_size = vocab_size
        self._lower = lower
        self._path = path
        self._native = self._loading(lambda: tokenizers.Tokenizer.from_file(str(path)))
        self._loading(self._prepare)
        self.pairs = self._loading(self._pairs)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids. Raises RequestRefused for a text over which the tokenizer breaks."""
        assert not parse_special  # there is no template here whose marks would count
        if self._lower:
            text = text.lower()
        try:
            return self._plain(text, add_special=add_special)
        except BaseException as error:
            if not _is_fault_of_input(error):
                raise
            message = "The model's tokenizer cannot read this text."
            raise RequestRefused(message, param="input") from error

    def _plain(self, text: str, *, add_special: bool) -> list[int]:
        ids: list[int] = self._native.encode(text, add_special_tokens=add_special).ids
        if add_special or self._controls.isdisjoint(ids):
            return ids
        # Some vocabularies hold their marks as words too.
        return [self._unknown if token in self._controls else token for token in ids]

    def _prepare(self) -> None:
        native = self._native
        native.no_truncation()
        native.no_padding()
        native.encode_special_tokens = True
        numbers = native.get_vocab(with_added_tokens=True)
        if max(numbers.values(), default=self.vocab_size) >= self.vocab_size:
            raise EngineLoadError(
                f"{self._path.name} has {len(numbers)} tokens, and the model knows"
                f" {self.vocab_size}"
            )
        special = {
            number for number, token in native.get_added_tokens_decoder().items() if token.special
        }
        unknown = next((numbers[word] for word in _UNKNOWN if word in numbers), 0)
        self._unknown: int = unknown
        self._controls = frozenset(special - {unknown})

    def _pairs(self) -> Pairs:
        inner = self._plain("a", add_special=False)
        both = self._native.encode("a", "a", add_special_tokens=True)
        ids: list[int] = both.ids
        places = [at for at in range(len(ids)) if inner and ids[at : at + len(inner)] == inner]
        if len(places) != 2:
            return Pairs((), (), 0)  # it does not say; only a model with a head needs it
        first, second = places
        return Pairs(
            between=tuple(ids[first + len(inner) : second]),
            end=tuple(ids[second + len(inner) :]),
            second_type=int(both.type_ids[second]),
        )

    def _loading(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except EngineLoadError:
            raise
        except BaseException as error:
            if not _is_fault_of_input(error):
                raise
            reason = str(error)[:200]
            raise EngineLoadError(f"{self._path.name} cannot be used: {reason}") from error


def _is_fault_of_input(error: BaseException) -> bool:
    """Also a panic, which is no Exception to Python."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
