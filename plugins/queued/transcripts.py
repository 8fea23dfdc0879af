"""What whisper models answer, in the forms that their providers give it.

``segments`` with ``start``, ``end``, ``text`` (and ``words`` in them) is openai-whisper's form and
whisperX's; ``chunks`` with ``timestamp: [start, end]`` is that of transformers' pipeline.
"""

import math
from typing import Any

import msgspec
from msgspec import Raw

from plugins.http.failures import DECODE_ERRORS
from plugins.queued.measures import NULL, SECONDS_MAX
from plugins.tasks import Transcript


class _Word(msgspec.Struct):
    word: str
    start: float
    end: float


class _Part(msgspec.Struct):
    text: str = ""
    start: float | None = None
    end: float | None = None
    timestamp: list[float | None] | None = None
    words: list[_Word] | None = None

    def span(self) -> tuple[float, float] | None:
        """Start and end in seconds; None where they are not told or cannot be true."""
        start, end = self.start, self.end
        if self.timestamp is not None and len(self.timestamp) == 2:
            start, end = self.timestamp
        if start is None:
            return None
        end = start if end is None else end
        good = math.isfinite(start) and math.isfinite(end) and 0 <= start <= end <= SECONDS_MAX
        return (start, end) if good else None


_parts = msgspec.json.Decoder(list[_Part] | None)


def transcript(
    text: str, parts: Raw = NULL, *, language: str | None = None, parts_are_words: bool = False
) -> Transcript:
    """A transcript; ``parts`` are segments or chunks as JSON, left out where they make no sense.

    Without ``text`` it is put together from the parts. ``duration_s`` is the end of the last part.
    """
    found = _read(parts)
    if found is None:
        return Transcript(text=text.strip(), language=language)
    spans = [span for _, span in found]
    pieces: list[dict[str, Any]] = [
        {"start": start, "end": end, "text": part.text} for part, (start, end) in found
    ]
    words: list[dict[str, Any]] = [
        msgspec.to_builtins(word) for part, _ in found for word in part.words or ()
    ]
    if parts_are_words:
        words = [
            {"start": piece["start"], "end": piece["end"], "word": piece["text"].strip()}
            for piece in pieces
        ]
    return Transcript(
        text=(text or "".join(part.text for part, _ in found)).strip(),
        language=language,
        duration_s=max(end for _, end in spans),
        segments=None
        if parts_are_words
        else [{"id": n, **piece} for n, piece in enumerate(pieces)],
        words=words or None,
    )


def _read(parts: Raw) -> list[tuple[_Part, tuple[float, float]]] | None:
    try:
        decoded = _parts.decode(parts)
    except DECODE_ERRORS:
        return None
    found = []
    for part in decoded or ():
        span = part.span()
        if span is None:
            return None
        found.append((part, span))
    return found or None


def heard_ms(found: Transcript) -> int:
    """Milliseconds of sound, as far as the transcript tells; 0 where it does not."""
    return 0 if found.duration_s is None else math.ceil(found.duration_s * 1000)
