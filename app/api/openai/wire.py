"""Bodies of OpenAI's chat completion API (openai/openai-openapi): a whole answer and its chunks."""

from collections.abc import Sequence

import msgspec

from app.gateway.call import Call
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


def completion_body(call: Call, choices: Sequence[Choice]) -> bytes:
    """The JSON of a whole answer."""
    return _encode(
        CompletionBody(
            id=f"chatcmpl-{call.id}",
            object="chat.completion",
            created=call.admitted_at_ms // 1000,
            model=call.offer.model,
            choices=choices,
            usage=usage_body(call.usage),
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

    def usage_frame(self) -> bytes:
        """The extra last chunk, where the client asked for it: no choices, only the usage."""
        if not self._with_usage:
            return b""
        return self._head + b'],"usage":' + _encode(usage_body(self._call.usage)) + b"}\n\n"
