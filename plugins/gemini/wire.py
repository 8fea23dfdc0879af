"""What Gemini answers: one ``GenerateContentResponse``, whole or as one of a stream's events.

Source: googleapis/python-genai, ``types.py``. New kinds of parts may come at any time and are
passed over, as are pictures, which an answer to a chat has no place for; usage is read apart from
the answer, so that a nonsensical one costs us the numbers and not the answer.
"""

import math
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from plugins.chat import Object
from plugins.contract import Usage
from plugins.http.failures import DECODE_ERRORS

# No answer of one call has more; a larger number is a provider's mistake, and not to be charged.
_Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]
ID_LENGTH_MAX = 256
NULL = Raw(b"null")
# Part of OpenAI's format; the API does not give a lower one.
_LOGPROB_MIN = -9999.0

_FILTERED = {
    *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "OTHER"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER"),
}
BROKEN = frozenset(
    {
        *("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"),
        *("MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE"),
    }
)
"""Ends of answers in which the model called a tool and failed at it."""


class WireCall(msgspec.Struct, gc=False):
    """A call of a tool; ``args`` are left out where there are none."""

    name: str = ""
    args: Any = None
    id: str | None = None


class WirePart(msgspec.Struct, rename="camel", gc=False):
    """One part of an answer, of any kind."""

    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: WireCall | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[WirePart] | None = None


class _Token(msgspec.Struct, rename="camel", gc=False):
    token: str = ""
    log_probability: float | None = None


class _Tops(msgspec.Struct, gc=False):
    candidates: list[_Token] | None = None


class WireLogprobs(msgspec.Struct, rename="camel", gc=False):
    """Per token of the answer: the one that was chosen, and the likeliest."""

    chosen_candidates: list[_Token] | None = None
    top_candidates: list[_Tops] | None = None


class WireCandidate(msgspec.Struct, rename="camel", gc=False):
    """One of the answers, or a piece of it; of a blocked one the content is missing."""

    index: int = 0
    content: _Content | None = None
    finish_reason: str | None = None
    logprobs_result: WireLogprobs | None = None


class _Feedback(msgspec.Struct, rename="camel", gc=False):
    block_reason: str | None = None


class WireReply(msgspec.Struct, rename="camel", gc=False):
    """An answer, a piece of one, or an error in its place."""

    candidates: list[WireCandidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Raw = NULL
    response_id: str | None = None
    error: Any = None


class _Share(msgspec.Struct, rename="camel"):
    modality: str = ""
    token_count: _Tokens = 0


class WireUsage(msgspec.Struct, rename="camel", kw_only=True):
    """Counts of the whole call so far. Cached tokens are among the prompt's."""

    prompt_token_count: _Tokens | None = None
    cached_content_token_count: _Tokens | None = None
    tool_use_prompt_token_count: _Tokens | None = None
    candidates_token_count: _Tokens | None = None
    thoughts_token_count: _Tokens | None = None
    total_token_count: Raw = NULL
    prompt_tokens_details: list[_Share] | None = None
    cache_tokens_details: list[_Share] | None = None
    candidates_tokens_details: list[_Share] | None = None


reply_decoder = msgspec.json.Decoder(WireReply)
_usage_decoder = msgspec.json.Decoder(WireUsage | None)
_encoder = msgspec.json.Encoder()


def usage_of(raw: Raw) -> WireUsage | None:
    """The counts, None where they are absent or make no sense."""
    try:
        found: WireUsage | None = _usage_decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    return found


def merged(before: WireUsage | None, after: WireUsage | None) -> WireUsage | None:
    """Counts of a stream so far: later ones are of the whole, not added."""
    if before is None or after is None:
        return after or before
    values = {
        name: value
        for name in WireUsage.__struct_fields__
        if (value := getattr(after, name)) is not None and value != NULL
    }
    return msgspec.structs.replace(before, **values)


def buckets_of(usage: WireUsage | None) -> Usage | None:
    """The counts in buckets that do not overlap; None where the prompt's is missing.

    Thoughts come on top of the candidates' tokens, but for answers whose total says otherwise. A
    share that claims more than there is gets what is left.
    """
    if usage is None or not usage.prompt_token_count:
        return None
    prompt = usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0)
    made, thought = usage.candidates_token_count or 0, usage.thoughts_token_count or 0
    if thought and bytes(usage.total_token_count) == b"%d" % (prompt + made):
        thought = min(thought, made)
        made -= thought
    read = min(usage.cached_content_token_count or 0, prompt)
    heard = _of_sound(usage.prompt_tokens_details) - _of_sound(usage.cache_tokens_details)
    heard = min(max(heard, 0), prompt - read)
    spoken = min(_of_sound(usage.candidates_tokens_details), made)
    return Usage(
        input_tokens=prompt - read - heard,
        cache_read_tokens=read,
        audio_input_tokens=heard,
        output_tokens=made - spoken,
        reasoning_tokens=thought,
        audio_output_tokens=spoken,
    )


def _of_sound(shares: list[_Share] | None) -> int:
    return sum(share.token_count for share in shares or () if share.modality == "AUDIO")


def finish_of(reason: str, *, called: bool) -> str:
    """OpenAI's word for why the answer ended."""
    if reason == "MAX_TOKENS":
        return "length"
    if reason in _FILTERED:
        return "content_filter"
    return "tool_calls" if called else "stop"


def arguments_of(given: Any) -> str:
    """A call's arguments as JSON text."""
    return _encoder.encode(given if isinstance(given, dict) else {}).decode()


def logprobs_of(found: WireLogprobs | None) -> Object | None:
    """The likelihoods in OpenAI's form."""
    if found is None or not found.chosen_candidates:
        return None
    tops = found.top_candidates or []
    content = []
    for number, chosen in enumerate(found.chosen_candidates):
        top = tops[number].candidates if number < len(tops) else None
        content.append({**_entry(chosen), "top_logprobs": [_entry(each) for each in top or ()]})
    return {"content": content, "refusal": None}


def _entry(token: _Token) -> Object:
    told = token.log_probability
    good = told is not None and math.isfinite(told) and told <= 0
    return {
        "token": token.token,
        "logprob": told if good else _LOGPROB_MIN,
        "bytes": list(token.token.encode()),
    }


def or_unset(found: Any) -> Any | UnsetType:
    """What there is of a field that stays absent where it is empty."""
    return found or UNSET
