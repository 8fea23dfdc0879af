"""A log record as a line: for people, or for machines as one JSON object.

A line is a line: whatever came from outside into a message has its control characters escaped, so
that nobody can make one up. In text a traceback goes on below its line, each of its lines behind a
bar that no line of the log begins with.
"""

import json
import logging
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from app.logs.fields import error_of, fields_of, message_of

LogFormat = Literal["text", "json"]
CONTINUED = "    | "

# Controls, line and paragraph separators, what turns the direction of writing round, and halves of
# pairs, which are no text.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class TextLines(logging.Formatter):
    """``2026-03-01T12:00:00.000Z INFO turnpike.access: call ended status=200 …``"""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with a traceback's below it."""
        message = escape(message_of(record))
        line = f"{moment(record.created)} {record.levelname} {escape(record.name)}: {message}"
        for name, value in fields_of(record).items():
            text = escape(str(value))
            if not (isinstance(value, str) and text in message):
                line += f" {name}={text}"
        error = error_of(record)
        if error is not None:
            line += "".join(f"\n{CONTINUED}{escape(each)}" for each in error.split("\n"))
        return line


class JsonLines(logging.Formatter):
    """One object of the fields that README.md names, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said = {
            "time": moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
            **fields_of(record),
        }
        error = error_of(record)
        if error is not None:
            said["error"] = error
        return _encode(said)


FORMATS: dict[LogFormat, Callable[[], logging.Formatter]] = {"text": TextLines, "json": JsonLines}


def escape(text: str) -> str:
    """The text without anything that could end a line, move a cursor or hide a word."""
    return _UNSAFE.sub(_escaped, text)


def moment(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
