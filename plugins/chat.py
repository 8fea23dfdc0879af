"""The canonical chat form that every dialect is read into and every adapter is written against.

It is OpenAI's chat completion API (openai/openai-openapi, ``CreateChatCompletionRequest``) plus the
fields that open-weights servers add (vLLM, SGLang, llama-server: ``top_k``, ``min_p``,
``repetition_penalty``, ``reasoning_content``). A field that is not named here is refused by name
when the request is decoded, so nothing is dropped in silence. Absent fields stay absent when the
request is encoded again.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from plugins.preferences import Routed

Object = dict[str, Any]
ModelId = Annotated[str, Meta(min_length=1, max_length=256)]
TokenCount = Annotated[int, Meta(ge=1, le=10_000_000)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = Annotated[str, Meta(min_length=1, max_length=1024)]


class Message(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One message of the conversation. ``content`` is text, a list of parts, or null."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[Object] | None | UnsetType = UNSET
    name: str | None | UnsetType = UNSET
    tool_calls: list[Object] | None | UnsetType = UNSET
    tool_call_id: str | None | UnsetType = UNSET
    function_call: Object | None | UnsetType = UNSET
    refusal: str | None | UnsetType = UNSET
    audio: Object | None | UnsetType = UNSET
    annotations: list[Object] | None | UnsetType = UNSET
    reasoning: str | None | UnsetType = UNSET
    reasoning_content: str | None | UnsetType = UNSET
    reasoning_details: list[Object] | None | UnsetType = UNSET

    def text_bytes(self) -> int:
        """Bytes of its text as UTF-8, over all parts."""
        if isinstance(self.content, str):
            return len(self.content.encode())
        if isinstance(self.content, list):
            texts = (part.get("text") for part in self.content)
            return sum(len(text.encode()) for text in texts if isinstance(text, str))
        return 0


class StreamOptions(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What else a stream carries."""

    include_usage: bool | None | UnsetType = UNSET
    include_obfuscation: bool | None | UnsetType = UNSET


class ChatRequest(Routed, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A chat completion request, every parameter of the API; ranges as OpenAI documents them.

    ``model`` is the first that is sent on: proxies route on that prefix.
    """

    model: ModelId
    messages: Annotated[list[Message], Meta(min_length=1, max_length=100_000)]
    audio: Object | None | UnsetType = UNSET
    frequency_penalty: Penalty | None | UnsetType = UNSET
    function_call: str | Object | None | UnsetType = UNSET
    functions: Annotated[list[Object], Meta(max_length=128)] | None | UnsetType = UNSET
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None | UnsetType = UNSET
    logprobs: bool | None | UnsetType = UNSET
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None | UnsetType = UNSET
    max_tokens: TokenCount | None | UnsetType = UNSET
    max_completion_tokens: TokenCount | None | UnsetType = UNSET
    metadata: dict[str, str] | None | UnsetType = UNSET
    modalities: list[Literal["text", "audio"]] | None | UnsetType = UNSET
    moderation: Object | None | UnsetType = UNSET
    n: Annotated[int, Meta(ge=1, le=128)] | None | UnsetType = UNSET
    parallel_tool_calls: bool | None | UnsetType = UNSET
    prediction: Object | None | UnsetType = UNSET
    presence_penalty: Penalty | None | UnsetType = UNSET
    prompt_cache_key: str | None | UnsetType = UNSET
    prompt_cache_options: Object | None | UnsetType = UNSET
    prompt_cache_retention: str | None | UnsetType = UNSET
    reasoning_effort: str | None | UnsetType = UNSET
    response_format: Object | None | UnsetType = UNSET
    safety_identifier: str | None | UnsetType = UNSET
    seed: Int64 | None | UnsetType = UNSET
    service_tier: str | None | UnsetType = UNSET
    stop: Stop | Annotated[list[Stop], Meta(max_length=16)] | None | UnsetType = UNSET
    store: bool | None | UnsetType = UNSET
    stream: bool | None | UnsetType = UNSET
    stream_options: StreamOptions | None | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | None | UnsetType = UNSET
    tool_choice: str | Object | None | UnsetType = UNSET
    tools: Annotated[list[Object], Meta(max_length=1024)] | None | UnsetType = UNSET
    top_p: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    user: str | None | UnsetType = UNSET
    verbosity: str | None | UnsetType = UNSET
    web_search_options: Object | None | UnsetType = UNSET
    # Beyond OpenAI's API, as open-weights servers take them.
    reasoning: Object | None | UnsetType = UNSET
    chat_template_kwargs: Object | None | UnsetType = UNSET
    dry_allowed_length: Annotated[int, Meta(ge=0, le=1_000)] | None | UnsetType = UNSET
    dry_base: Annotated[float, Meta(ge=1, le=10)] | None | UnsetType = UNSET
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] | None | UnsetType = UNSET
    grammar: Annotated[str, Meta(min_length=1, max_length=65_536)] | None | UnsetType = UNSET
    ignore_eos: bool | None | UnsetType = UNSET
    min_p: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    min_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] | None | UnsetType = UNSET
    mirostat: Literal[0, 1, 2] | None | UnsetType = UNSET
    mirostat_eta: Annotated[float, Meta(gt=0, le=1)] | None | UnsetType = UNSET
    mirostat_tau: Annotated[float, Meta(ge=0, le=100)] | None | UnsetType = UNSET
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None | UnsetType = UNSET
    top_n_sigma: Annotated[float, Meta(ge=-1, le=100)] | None | UnsetType = UNSET
    typical_p: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    xtc_probability: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    xtc_threshold: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET

    @property
    def task(self) -> str:
        """The Hub's name of what is asked for."""
        return "conversational"

    def text_bytes(self) -> int:
        """Bytes of the text in it, as UTF-8."""
        return sum(message.text_bytes() for message in self.messages)

    def given_params(self) -> list[str]:
        """Names of the optional parameters that carry a value (not absent, not null)."""
        return [
            name
            for name in PARAMS
            if (value := getattr(self, name)) is not UNSET and value is not None
        ]

    def answers(self) -> int:
        """How many answers are asked for: ``n``, or one."""
        return self.n if isinstance(self.n, int) else 1

    def output_tokens_limit(self) -> int | None:
        """``max_completion_tokens``, or its older name ``max_tokens``, or nothing."""
        for value in (self.max_completion_tokens, self.max_tokens):
            if isinstance(value, int):
                return value
        return None


PARAMS = tuple(
    name
    for name in ChatRequest.__struct_fields__
    if name not in {"model", "messages", "models", "provider"}
)
"""The names of all optional parameters."""


class AssistantMessage(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A whole answer of one choice; ``content`` is null when only tools are called."""

    role: str
    content: str | None
    refusal: str | None | UnsetType = UNSET
    tool_calls: list[Object] | None | UnsetType = UNSET
    function_call: Object | None | UnsetType = UNSET
    annotations: list[Object] | None | UnsetType = UNSET
    audio: Object | None | UnsetType = UNSET
    reasoning: str | None | UnsetType = UNSET
    reasoning_content: str | None | UnsetType = UNSET
    reasoning_details: list[Object] | None | UnsetType = UNSET


class Choice(msgspec.Struct, kw_only=True):
    """One of ``n`` answers."""

    index: int
    message: AssistantMessage
    logprobs: Object | None = None
    finish_reason: str


class Delta(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What one chunk adds to a message."""

    role: str | None | UnsetType = UNSET
    content: str | None | UnsetType = UNSET
    refusal: str | None | UnsetType = UNSET
    tool_calls: list[Object] | None | UnsetType = UNSET
    function_call: Object | None | UnsetType = UNSET
    annotations: list[Object] | None | UnsetType = UNSET
    audio: Object | None | UnsetType = UNSET
    reasoning: str | None | UnsetType = UNSET
    reasoning_content: str | None | UnsetType = UNSET
    reasoning_details: list[Object] | None | UnsetType = UNSET


class ChoiceDelta(msgspec.Struct, kw_only=True):
    """One choice's part of a chunk; ``finish_reason`` is set in that choice's last chunk."""

    index: int
    delta: Delta
    logprobs: Object | None = None
    finish_reason: str | None = None
