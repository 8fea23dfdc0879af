"""From bytes of tokens to text that may be shown: whole characters, no part of a stop string.

The result depends on the bytes alone, not on where tokens begin and end.
"""

import codecs
from collections.abc import Sequence


class _Matcher:
    """How much of one stop string the end of the text so far matches (Knuth-Morris-Pratt)."""

    __slots__ = ("_borders", "_stop", "matched")

    def __init__(self, stop: str) -> None:
        self._stop = stop
        self._borders = [0] * len(stop)
        self.matched = 0
        border = 0
        for at in range(1, len(stop)):
            while border and stop[at] != stop[border]:
                border = self._borders[border - 1]
            border += stop[at] == stop[border]
            self._borders[at] = border

    def push(self, character: str) -> bool:
        """Take one character; True when the stop string is complete."""
        while self.matched and character != self._stop[self.matched]:
            self.matched = self._borders[self.matched - 1]
        self.matched += character == self._stop[self.matched]
        return self.matched == len(self._stop)


class Characters:
    """Whole characters from bytes. Bytes that are no UTF-8 become U+FFFD.

    A character that is still incomplete at the end is dropped.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._within = False  # a character has begun and is incomplete

    def push(self, data: bytes) -> str:
        """The characters that have become complete."""
        if not self._within:
            try:
                return data.decode()  # the same, for whole characters, at a third of the time
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(data)
        self._within = bool(self._decoder.getstate()[0])
        return text


class StopFilter:
    """One answer's text up to a stop string: ``push`` gives what may be shown now.

    The answer ends at the first stop string to be complete; the stop string itself is never shown.
    Of two that are complete with the same character the longer one counts.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._matchers = [_Matcher(stop) for stop in stops if stop]
        self._held = ""
        self.stopped = False
        self.characters_shown = 0

    def push(self, text: str) -> str:
        """Text that became safe to show. After ``stopped`` everything is ignored."""
        if self.stopped:
            return ""
        if not self._matchers:
            self.characters_shown += len(text)
            return text
        for at, character in enumerate(text):
            complete = [m.matched for m in self._matchers if m.push(character)]
            if complete:
                self.stopped = True
                self._held += text[: at + 1]
                return self._show(len(self._held) - max(complete))
        self._held += text
        return self._show(len(self._held) - max(m.matched for m in self._matchers))

    def flush(self) -> str:
        """The answer is over without a stop string: what was held back is part of it."""
        return "" if self.stopped else self._show(len(self._held))

    def _show(self, count: int) -> str:
        shown, self._held = self._held[:count], self._held[count:]
        self.characters_shown += len(shown)
        return shown


class TextAssembler:
    """One answer's text from its bytes: ``Characters``, and then a ``StopFilter``."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._characters = Characters()
        self._stop = StopFilter(stops)

    def push(self, data: bytes) -> str:
        """Text that became safe to show. After ``stopped`` everything is ignored."""
        return self._stop.push(self._characters.push(data))

    def flush(self) -> str:
        """What was held back for a stop string that did not come."""
        return self._stop.flush()

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete."""
        return self._stop.stopped
