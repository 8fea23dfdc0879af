"""What a person sees while set-up works: a live line on a terminal, plain lines when piped."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

BAR_WIDTH = 24
REDRAW_SECONDS = 0.1
PLAIN_REPORT_STEP = 0.1  # when piped: one line per tenth
QUIET_SECONDS = 30.0  # when piped: and one line where this long nothing was said


def duration(seconds: float) -> str:
    """``0:07``, ``5:22``, ``1:00:03``."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def time_left(seconds: float, done: float, to_do: float) -> str:
    """An estimate by proportion: ``done`` took ``seconds``. Empty while too little is known."""
    if done < 0.03 or seconds < 2.0:
        return ""
    left = seconds / done * to_do
    return f", about {duration(left)} left" if left >= 1.0 else ""


class Display:
    """One step at a time: ``begin``, any number of ``update`` and ``tick``, then ``end``.

    Not for several threads: whoever runs the step calls it.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._live = self._stream.isatty() if live is None else live
        self._clock = clock
        self._filled, self._empty, self._done = self._marks()
        self._steps_total = 0
        self._step = 0
        self._title = ""
        self._began = 0.0
        self._fraction: float | None = None
        self._counted_from: tuple[float, float] | None = None  # time and fraction, once it moves
        self._detail = ""
        self._drawn = 0.0
        self._said = 0.0
        self._tenths = 0

    def plan(self, steps: int) -> None:
        """How many steps will come."""
        self._steps_total, self._step = steps, 0

    def begin(self, title: str) -> None:
        """A step starts."""
        self._step += 1
        self._title = title
        self._began = self._drawn = self._said = self._clock()
        self._fraction, self._detail, self._tenths = None, "", 0
        self._counted_from = None
        if self._live:
            self._draw()
        else:
            self.say(f"{self._prefix()} {title} ...")

    def update(self, fraction: float | None, detail: str = "") -> None:
        """How far it is: 0.0 to 1.0, or None where nothing can be counted."""
        self._fraction = None if fraction is None else min(max(fraction, 0.0), 1.0)
        self._detail = detail
        if self._fraction and self._counted_from is None:
            self._counted_from = (self._clock(), self._fraction)
        self.tick()

    def tick(self) -> None:
        """Time went by."""
        now = self._clock()
        if self._live:
            if now - self._drawn >= REDRAW_SECONDS:
                self._drawn = now
                self._draw()
            return
        tenths = int((self._fraction or 0.0) / PLAIN_REPORT_STEP + 1e-9)
        passed_a_tenth = tenths > self._tenths and now - self._began >= 1.0
        if passed_a_tenth or now - self._said >= QUIET_SECONDS:
            self._tenths, self._said = max(tenths, self._tenths), now
            self.say(f"{' ' * len(self._prefix())} {self._state()}")

    def end(self, note: str = "") -> None:
        """The step is done."""
        text = f"{self._prefix()} {self._title}"
        tail = f"{duration(self._clock() - self._began)}{f', {note}' if note else ''}"
        if self._live:
            self._clear()
            self.say(f"{text} {self._done} {tail}")
        else:
            self.say(f"{text}: done in {tail}")

    def fail(self, note: str) -> None:
        """The step is over and did not do its work."""
        if self._live:
            self._clear()
        self.say(f"{self._prefix()} {self._title}: {note}")

    def say(self, text: str) -> None:
        """A line of its own."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _marks(self) -> tuple[str, str, str]:
        marks = ("━", "─", "✓")
        try:
            "".join(marks).encode(getattr(self._stream, "encoding", None) or "ascii")
        except (UnicodeEncodeError, LookupError):
            return ("#", "-", "ok")
        return marks

    def _prefix(self) -> str:
        return f"[{self._step}/{max(self._steps_total, self._step)}]"

    def _state(self) -> str:
        now = self._clock()
        words = duration(now - self._began)
        if self._fraction is not None:
            since, at_first = self._counted_from or (now, self._fraction)
            left = time_left(now - since, self._fraction - at_first, 1.0 - self._fraction)
            words = f"{self._fraction:4.0%}  {words}{left}"
        return f"{words}  {self._detail}" if self._detail else words

    def _bar(self) -> str:
        if self._fraction is None:
            at = int((self._clock() - self._began) * 8) % BAR_WIDTH
            return self._empty * at + self._filled + self._empty * (BAR_WIDTH - at - 1)
        full = round(self._fraction * BAR_WIDTH)
        return self._filled * full + self._empty * (BAR_WIDTH - full)

    def _draw(self) -> None:
        columns = shutil.get_terminal_size((80, 24)).columns
        line = f"{self._prefix()} {self._title}  {self._bar()}  {self._state()}"
        self._stream.write(f"\r{line[: columns - 1]}\x1b[K")
        self._stream.flush()

    def _clear(self) -> None:
        self._stream.write("\r\x1b[K")
