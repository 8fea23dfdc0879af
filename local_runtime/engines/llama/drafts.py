"""What is likely to come next, found in what is already there: drafts for speculative decoding.

Answers often repeat: a text to be corrected, code, quotations, lists. So the last tokens are looked
up in the prompt and the answer so far, and what followed them there is guessed to follow again. How
good such guesses are is known without paying for any: every token that comes is compared with the
one that would have been guessed. Pure; ``speculation.py`` decides how many guesses are worth it.
"""

from collections.abc import Sequence

# How much stands for a guess: 2 or 3 equal tokens before it, or so many right guesses in a row.
_STREAKS = (1, 3, 7, 15)
LEVELS = 2 + len(_STREAKS)
DRAFT_TOKENS_MAX = 16
_INDEXED_AT_ONCE = 4_096
_SHIFT = 21  # bits of a token id
_MASK = (1 << _SHIFT) - 1
# Shares of right guesses before any was made, by level.
_USUAL = (0.25, 0.4, 0.7, 0.85, 0.92, 0.96)
_USUAL_WEIGHT = 4.0
_FADE = 0.995


class Record:
    """Shares of right guesses by level. With a ``parent``, that is what is assumed at first."""

    def __init__(self, parent: "Record | None" = None) -> None:
        self._parent = parent
        self._right = [0.0] * LEVELS
        self._made = [0.0] * LEVELS

    def note(self, level: int, *, right: bool) -> None:
        """A guess was or would have been right or wrong. Old ones fade."""
        self._right[level] = self._right[level] * _FADE + right
        self._made[level] = self._made[level] * _FADE + 1
        if self._parent is not None:
            self._parent.note(level, right=right)

    def share(self, level: int) -> float:
        """How likely the next guess of this level is right."""
        usual = _USUAL[level] if self._parent is None else self._parent.share(level)
        return (self._right[level] + usual * _USUAL_WEIGHT) / (self._made[level] + _USUAL_WEIGHT)


class Lookup:
    """One sequence's past, and the place in it that its future seems to follow.

    ``follow`` is told of the sequence's tokens, a list that only grows; all else reads that list.
    """

    def __init__(self, tokens: Sequence[int], parent: Record) -> None:
        self._tokens = tokens
        self._record = Record(parent)
        # Two and three token ids in a row, as one number → the last place behind them.
        self._pairs: dict[int, int] = {}
        self._triples: dict[int, int] = {}
        self._indexed = 0
        self._heard = len(tokens)
        self._place: int | None = None  # of the token that is guessed next
        self._level = 0
        self._streak = 0

    def follow(self) -> None:
        """Take in what was added since the last time. Little work for each token."""
        heard, end = self._heard, len(self._tokens)
        while self._place is not None and heard < end:
            right = self._tokens[self._place] == self._tokens[heard]
            self._record.note(self._level, right=right)
            self._streak = self._streak + 1 if right else 0
            self._place = self._place + 1 if right else None
            heard += 1
        self._heard = end
        self._index()
        if self._place is None:
            self._find()
        else:
            self._level = level_of(self._streak) if self._streak else self._level

    @property
    def found(self) -> bool:
        """Whether anything can be guessed."""
        return self._place is not None

    def guesses(self, count: int) -> tuple[list[int], list[float]]:
        """At most ``count`` tokens, and for each how likely it and all before it are right."""
        tokens, place = self._tokens, self._place
        guessed: list[int] = []
        likely: list[float] = []
        if place is None:
            return guessed, likely
        period = len(tokens) - place
        share = 1.0
        for at in range(count):
            token = tokens[place + at % period]
            if token < 0:  # part of a picture
                break
            level = self._level if not at else level_of(self._streak + at)
            share *= self._record.share(level)
            guessed.append(token)
            likely.append(share)
        return guessed, likely

    def _index(self) -> None:
        tokens = self._tokens
        end = min(len(tokens), self._indexed + _INDEXED_AT_ONCE)
        for at in range(max(self._indexed, 2), end):
            pair = _pair(tokens, at)
            self._pairs[pair] = at
            if at > 2:
                self._triples[_triple(tokens, at, pair)] = at
        self._indexed = end

    def _find(self) -> None:
        end = len(self._tokens)
        if self._indexed < end or end < 3:
            return
        pair = _pair(self._tokens, end)
        place, level = self._triples.get(_triple(self._tokens, end, pair)), 1
        if place is None:
            place, level = self._pairs.get(pair), 0
        if place is not None:
            self._place, self._streak, self._level = place, 0, level


def level_of(streak: int) -> int:
    """The level of a guess after so many right ones, at least one."""
    return 1 + sum(streak >= least for least in _STREAKS)


def _pair(tokens: Sequence[int], end: int) -> int:
    """The two tokens before ``end``."""
    return (tokens[end - 2] & _MASK) << _SHIFT | tokens[end - 1] & _MASK


def _triple(tokens: Sequence[int], end: int, pair: int) -> int:
    """The three tokens before ``end``, of which ``pair`` are the last two."""
    return (tokens[end - 3] & _MASK) << 2 * _SHIFT | pair
