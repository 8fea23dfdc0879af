"""Where pictures stand in a prompt. Pure: counts cells and positions, and knows no pixels.

A view is a picture, or a slice of one, at its place among the prompt's tokens, where each of its
cells is a number below zero. It is read whole or not at all by whoever shares cells: half a picture
is no beginning that another prompt could go on from.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Protocol


class Part(Protocol):
    """What a projector reads at once: it takes ``tokens`` cells and moves on ``positions``."""

    tokens: int
    positions: int

    def close(self) -> None:
        """Free it; again is harmless."""
        ...


class View:
    """A part at its place: the cells of the tokens from ``begin`` to ``end``.

    ``first_token`` stands for its first cell; the others count down from it.
    """

    def __init__(self, part: Part, begin: int, first_token: int) -> None:
        self.part = part
        self.begin = begin
        self.first_token = first_token

    @property
    def end(self) -> int:
        return self.begin + self.part.tokens

    @property
    def tokens(self) -> range:
        """What stands for it in a prompt."""
        return range(self.first_token, self.first_token - self.part.tokens, -1)


Read = list[int | View]
"""A picture as tokens of text that the model wants around it, and views without a place as yet."""


def close(pictures: Iterable[Read]) -> None:
    """Free pictures of which nothing comes."""
    for picture in pictures:
        for piece in picture:
            if isinstance(piece, View):
                piece.part.close()


class Views:
    """The views of one prompt, by their places."""

    def __init__(self, views: Iterable[View] = ()) -> None:
        self._views = sorted(views, key=lambda view: view.begin)
        self._begins = [view.begin for view in self._views]
        self._shifts = any(view.part.tokens != view.part.positions for view in self._views)

    def __len__(self) -> int:
        return len(self._views)

    def at(self, index: int) -> View | None:
        """The view that the token ``index`` belongs to; None: it is text."""
        before = bisect_right(self._begins, index) - 1
        return self._views[before] if before >= 0 and index < self._views[before].end else None

    def text_from(self, index: int, count: int) -> int:
        """How many of the ``count`` tokens from ``index`` on are text, up to the next view."""
        if self.at(index) is not None:
            return 0
        ahead = bisect_left(self._begins, index)
        return min(count, self._begins[ahead] - index) if ahead < len(self._begins) else count

    def whole(self, index: int) -> int:
        """``index``, or where the view begins that it lies in the middle of."""
        view = self.at(index)
        return index if view is None else view.begin

    def position(self, index: int) -> int:
        """The position in the sequence of the token ``index``, not in the middle of a view."""
        if not self._shifts:
            return index
        past = (view.part for view in self._views if view.end <= index)
        return index - sum(part.tokens - part.positions for part in past)

    def close(self) -> None:
        """Free all parts; again is harmless."""
        for view in self._views:
            view.part.close()


NO_VIEWS = Views()
