"""Which attributes a span can have. What is not here cannot get out, whoever adds it.

The names are OpenTelemetry's, of the semantic conventions for HTTP and for generative AI, and ours
with ``turnpike.`` before them. README.md has the table; a test holds it to this list.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from app.logs.redact import redact

Value = str | bool | int | float
TEXT_LENGTH_MAX = 256

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_SCHEME = "url.scheme"
ERROR_TYPE = "error.type"
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
MODEL = "gen_ai.request.model"
STREAM = "gen_ai.request.stream"
FIRST_CHUNK_S = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
REQUEST_ID = "turnpike.request_id"
USER_ID = "turnpike.user_id"
KEY_ID = "turnpike.key_id"
PAYER_ID = "turnpike.payer_id"
OUTCOME = "turnpike.outcome"
ATTEMPTS = "turnpike.attempts"
ATTEMPT = "turnpike.attempt"
OWN_KEY = "turnpike.own_key"
COST_NANO_USD = "turnpike.cost_nano_usd"
COMPUTE_NS = "turnpike.compute_ns"

TEXTS = frozenset(
    {
        *(HTTP_METHOD, HTTP_ROUTE, URL_SCHEME, ERROR_TYPE, OPERATION, PROVIDER, MODEL),
        *(REQUEST_ID, USER_ID, KEY_ID, PAYER_ID, OUTCOME),
    }
)
TRUTHS = frozenset({STREAM, OWN_KEY})
NUMBERS = frozenset(
    {
        *(HTTP_STATUS, FIRST_CHUNK_S, INPUT_TOKENS, OUTPUT_TOKENS, CACHE_READ_TOKENS),
        *(CACHE_WRITE_TOKENS, REASONING_TOKENS, ATTEMPTS, ATTEMPT, COST_NANO_USD, COMPUTE_NS),
    }
)
ATTRIBUTES = TEXTS | TRUTHS | NUMBERS

_OWN_ID = re.compile(r"(?:[a-z]{3,5}_)?[0-9a-f-]{32,36}")
# The same few words come with every call, and to look at them costs more than all the rest.
_word = lru_cache(maxsize=1024)(redact)


def allowed(given: Mapping[str, object]) -> dict[str, Value]:
    """What of it may be told: known names, each with a value of its type. Of texts what looks like
    a secret is taken out; None is left out."""
    found: dict[str, Value] = {}
    for name, value in given.items():
        if name in TEXTS:
            if isinstance(value, str) and value:
                known = _OWN_ID.fullmatch(value)
                found[name] = value if known else _word(value[:TEXT_LENGTH_MAX])
        elif name in NUMBERS:
            if type(value) is int or type(value) is float:
                found[name] = value
        elif name in TRUTHS and type(value) is bool:
            found[name] = value
    return found
