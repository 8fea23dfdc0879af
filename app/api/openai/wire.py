"""Bodies of OpenAI's chat completion API (openai/openai-openapi): a whole answer and its chunks."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec import UNSET, UnsetType

from app.api.envelope import error_body
from app.api.explain import FIELD, explained
from app.errors import CallError
from app.gateway.call import Answer, Call
from plugins.chat import Choice, ChoiceDelta
from plugins.contract import Usage

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


class PromptDetails(msgspec.Struct):
    """Of the prompt's tokens, those found in a cache."""

    cached_tokens: int


class CompletionDetails(msgspec.Struct):
    """Of the answer's tokens, those of hidden reasoning."""

    reasoning_tokens: int


class UsageBody(msgspec.Struct):
    """OpenAI's usage: totals, with details that are parts of them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class CompletionBody(msgspec.Struct):
    """A whole answer."""

    id: str
    object: str
    created: int
    model: str
    choices: Sequence[Choice]
    usage: UsageBody
    system_fingerprint: str | None = None
    openrouter_metadata: dict[str, Any] | UnsetType = UNSET


def usage_body(usage: Usage) -> UsageBody:
    """Our disjoint buckets as OpenAI's totals."""
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    completion = usage.output_tokens + usage.reasoning_tokens
    return UsageBody(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(usage.cache_read_tokens),
        completion_tokens_details=CompletionDetails(usage.reasoning_tokens),
    )


def completion_body(call: Call, answer: Answer) -> bytes:
    """The JSON of a whole answer: of a chat's choices."""
    choices = cast(Sequence[Choice], answer)
    return _encode(
        CompletionBody(
            id=f"chatcmpl-{call.id}",
            object="chat.completion",
            created=call.admitted_at_ms // 1000,
            model=call.offer.model,
            choices=choices,
            usage=usage_body(call.usage),
            openrouter_metadata=explained(call) if call.explain else UNSET,
        )
    )


class ChunkFrames:
    """Frames of one streamed answer. What is the same in all of them is encoded once."""

    def __init__(self, call: Call, *, with_usage: bool) -> None:
        self._call = call
        self._with_usage = with_usage
        head = _encode(
            {
                "id": f"chatcmpl-{call.id}",
                "object": "chat.completion.chunk",
                "created": call.admitted_at_ms // 1000,
                "model": call.offer.model,
            }
        )
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if with_usage else b"]}\n\n"
        self._between = self._tail + self._head

    def frames(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """One chunk for each delta; there is at least one."""
        return self._head + self._between.join(map(_encode, deltas)) + self._tail

    def last_frame(self) -> bytes:
        """The extra last chunk, where the client asked for it: no choices, only the usage, and how
        the call was served."""
        if not (self._with_usage or self._call.explain):
            return b""
        usage = _encode(usage_body(self._call.usage)) if self._with_usage else b"null"
        told = b""
        if self._call.explain:
            told = b',"' + FIELD.encode() + b'":' + _encode(explained(self._call))
        return self._head + b'],"usage":' + usage + told + b"}\n\n"


def served_by(call: Call) -> list[tuple[bytes, bytes]]:
    """Headers that say who answered, and without which of the request's parameters."""
    headers = [(b"x-inference-provider", call.offer.provider.encode())]
    if call.dropped_params:
        headers.append((b"x-turnpike-dropped-params", ", ".join(call.dropped_params).encode()))
    return headers


def broken_chunk(error: CallError, call: Call) -> bytes:
    """The last chunk of a stream that broke off: OpenRouter's form, in which clients that look at
    ``finish_reason`` only see it too. No [DONE] follows: the text must not pass for whole (I11)."""
    chunk = {
        "id": f"chatcmpl-{call.id}",
        "object": "chat.completion.chunk",
        "created": call.admitted_at_ms // 1000,
        "model": call.offer.model,
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    }
    return error_body(error, call.id)[:-1] + b"," + _encode(chunk)[1:]
