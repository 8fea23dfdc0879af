"""Which fields a log line can have. Whatever else a caller or a library adds never gets out.

The table in README.md says what each is; a test holds it to this list.
"""

import logging
import re
import traceback
from functools import lru_cache
from types import TracebackType
from typing import Any

from app.logs.redact import redact

ALWAYS = ("time", "level", "logger", "message")
IDS = ("call_id", "trace_id", "user_id", "key_id", "payer_id")
WORDS = ("provider", "model", "outcome", "code")
NUMBERS = (
    "status",
    "attempts",
    "duration_ms",
    "first_token_ms",
    "input_tokens",
    "output_tokens",
    "cost_nano_usd",
)
ERROR = "error"
FIELDS = (*ALWAYS, *IDS, *WORDS, *NUMBERS, ERROR)

MESSAGE_LENGTH_MAX = 8_000
ERROR_LENGTH_MAX = 16_000
FIELD_LENGTH_MAX = 256
_GIVEN = (*IDS, *WORDS, *NUMBERS)
_NUMBERS = frozenset(NUMBERS)
_PLAIN_LENGTH = len(logging.makeLogRecord({}).__dict__)
_OWN_ID = re.compile(r"(?:[a-z]{3,5}_)?[0-9a-f-]{32,36}")
# The same few words come with every call, and to look at them costs more than all the rest.
_word = lru_cache(maxsize=1024)(redact)

_ErrorInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def message_of(record: logging.LogRecord) -> str:
    """The message without secrets, at most ``MESSAGE_LENGTH_MAX`` characters; never an error."""
    try:
        if not record.args and isinstance(record.msg, str) and len(record.msg) < FIELD_LENGTH_MAX:
            return _word(record.msg)
        message = record.getMessage()
    except Exception:  # noqa: BLE001  # of a caller's own making; the line must not be lost
        message = f"{record.msg!s:.500} (its arguments do not fit)"
    return _bounded(redact(message), MESSAGE_LENGTH_MAX)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller put into ``extra``, as far as it is allowed: ids and words are strings, the
    rest are numbers, and what is of another type is left out."""
    found: dict[str, Any] = {}
    given = record.__dict__
    if len(given) == _PLAIN_LENGTH:
        return found
    for name in _GIVEN:
        value = given.get(name)
        if value is None:
            continue
        if name in _NUMBERS:
            if type(value) in {int, float}:
                found[name] = value
        elif isinstance(value, str) and value:
            found[name] = value if _OWN_ID.fullmatch(value) else _word(value[:FIELD_LENGTH_MAX])
    return found


def error_of(record: logging.LogRecord) -> str | None:
    """Type, text and traceback of the exception that came with it, if one did. Of a long one the
    middle is left out: it ends with what was raised."""
    info = record.exc_info
    if not info or info[1] is None:
        return None
    text = "".join(traceback.format_exception(*info)).rstrip("\n")
    return _bounded(redact(text), ERROR_LENGTH_MAX)


def _bounded(text: str, length_max: int) -> str:
    if len(text) <= length_max:
        return text
    half = length_max // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[-half:]}"
