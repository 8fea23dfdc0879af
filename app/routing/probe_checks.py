"""What a probe asks of an offer, and what its answers show. Pure: requests out, verdicts in.

The checks and their limits are those by which Hugging Face validates its partners
(huggingface/hub-docs, register-as-a-provider): the first token of a chat within 5 s, the whole
answer of another task within 30 s, tool calls, structured output. Tasks whose smallest call costs
as much as any (pictures, video, speech) are not probed: their status is that of their calls.
"""

from typing import Any

import msgspec
from msgspec import UNSET

from plugins.chat import AssistantMessage, ChatRequest, Delta, Message, Object, StreamOptions
from plugins.contract import Chunk as ChunkEvent
from plugins.contract import Completion, Event, InferenceCall, Offer, Produced, Usage, UsageReport
from plugins.tasks import (
    CONVERSATIONAL,
    FEATURE_EXTRACTION,
    TEXT_RANKING,
    EmbeddingRequest,
    Embeddings,
    Ranking,
    Request,
    RerankRequest,
)

FIRST_TOKEN_SECONDS_MAX = 5.0
ANSWER_SECONDS_MAX = 30.0

STREAM = "stream"
TOOLS = "tools"
JSON_SCHEMA = "json_schema"
JSON_OBJECT = "json_object"
EMBEDDING = "embedding"
RERANK = "rerank"

_STREAM_TOKENS = 48
_OBJECT_TOKENS = 256  # some models think before they answer
_TEXT_MAX = 64 * 1024
_COUNT = "Count from 1 to 20 in digits, separated by spaces. Write nothing else."
_WEATHER = "What is the weather in Paris right now? Call the tool get_weather to find out."
_CITY = 'Which city is the capital of France? Answer with JSON only, as {"city": "…"}.'
_WEATHER_TOOL: Object = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city right now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
_CITY_FORMAT: Object = {
    "type": "json_schema",
    "json_schema": {
        "name": "capital",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One small call, and what it shows: ``name`` is one of the constants above."""

    name: str
    request: Request
    stream: bool = False
    first_event_s: float = ANSWER_SECONDS_MAX
    tokens_max: int = 0

    def call(self, offer: Offer, probe_id: str, api_key: str | None) -> InferenceCall:
        """The work order for the adapter."""
        compute_ns = int(ANSWER_SECONDS_MAX * 1e9) if offer.price.compute_per_second else None
        return InferenceCall(
            call_id=probe_id,
            attempt_id=f"{probe_id}-{self.name}",
            upstream_id=offer.upstream_id,
            request=self.request,
            stream=self.stream,
            api_key=api_key,
            compute_ns_max=compute_ns,
            first_event_s=self.first_event_s,
            idle_s=ANSWER_SECONDS_MAX / 2,
            deadline_s=ANSWER_SECONDS_MAX,
        )


def checks_of(offer: Offer) -> list[Check]:
    """What is asked of an offer, the check that decides its status first; nothing where no task of
    it can be tried for next to nothing."""
    if CONVERSATIONAL in offer.tasks:
        checks = [_chat(offer, STREAM, _COUNT, _STREAM_TOKENS, stream=True)]
        if _honours(offer, "tools"):
            checks.append(_chat(offer, TOOLS, _WEATHER, _OBJECT_TOKENS, tools=[_WEATHER_TOOL]))
        if _honours(offer, "response_format"):
            kinds = ((JSON_SCHEMA, _CITY_FORMAT), (JSON_OBJECT, {"type": "json_object"}))
            checks += [
                _chat(offer, name, _CITY, _OBJECT_TOKENS, response_format=kind)
                for name, kind in kinds
            ]
        return checks
    if FEATURE_EXTRACTION in offer.tasks:
        return [Check(name=EMBEDDING, request=EmbeddingRequest(model=offer.model, input="probe"))]
    if TEXT_RANKING in offer.tasks:
        pair = RerankRequest(model=offer.model, query="probe", documents=["probe"])
        return [Check(name=RERANK, request=pair)]
    return []


def ruled_out(offer: Offer) -> list[str]:
    """The checks that an offer fails by its own list of parameters, without being asked."""
    if CONVERSATIONAL not in offer.tasks:
        return []
    found = [] if _honours(offer, "tools") else [TOOLS]
    return found if _honours(offer, "response_format") else [*found, JSON_SCHEMA, JSON_OBJECT]


class Heard:
    """What one call said, gathered event by event. Times are nanoseconds of the monotonic clock."""

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.first_ns: int | None = None
        self.ended_ns = began_ns
        self.usage: Usage | None = None
        self.text = ""
        self.finish: str | None = None
        self.vectors: list[list[float]] = []
        self.scores: list[float] = []
        self.calls: dict[int, list[str]] = {}  # a tool call's index: its name and arguments

    def take(self, event: Event, now_ns: int) -> None:
        """One more event."""
        self.ended_ns = now_ns
        if isinstance(event, ChunkEvent):
            for choice in event.choices:
                self._add(choice.delta, choice.finish_reason, now_ns)
        elif isinstance(event, Completion):
            for whole in event.choices:
                self._add(whole.message, whole.finish_reason, now_ns)
        elif isinstance(event, Produced):
            if isinstance(event.output, Embeddings):
                self.vectors = event.output.vectors
            elif isinstance(event.output, Ranking):
                self.scores = event.output.scores
        elif isinstance(event, UsageReport):
            self.usage = event.usage

    def first_token_ms(self) -> int | None:
        """How long the first piece took; thinking counts, an empty first piece does not."""
        return None if self.first_ns is None else (self.first_ns - self.began_ns) // 1_000_000

    def tokens_per_second(self, tokens_max: int) -> float | None:
        """Output tokens over the time of the whole call; None for counts that cannot be true."""
        if self.usage is None:
            return None
        tokens = self.usage.output_tokens + self.usage.reasoning_tokens
        seconds = (self.ended_ns - self.began_ns) / 1e9
        if not 0 < tokens <= 4 * tokens_max or seconds <= 0:
            return None
        return tokens / seconds

    def _add(self, said: Delta | AssistantMessage, finish: str | None, now_ns: int) -> None:
        if finish:
            self.finish = finish
        if self.first_ns is None and (
            said.content or said.tool_calls or said.reasoning or said.reasoning_content
        ):
            self.first_ns = now_ns
        if isinstance(said.content, str) and len(self.text) < _TEXT_MAX:
            self.text += said.content
        if isinstance(said.tool_calls, list):
            for at, call in enumerate(said.tool_calls):
                self._add_call(call, at)

    def _add_call(self, call: Object, at: int) -> None:
        index, function = call.get("index", at), call.get("function")
        if not isinstance(index, int) or not isinstance(function, dict):
            return
        known = self.calls.setdefault(index, ["", ""])
        for place, name in enumerate(("name", "arguments")):
            piece = function.get(name)
            if isinstance(piece, str) and len(known[place]) < _TEXT_MAX:
                known[place] += piece


def verdict(check: Check, heard: Heard) -> tuple[bool | None, str]:
    """Whether the answer shows what was asked for, and why not. None: it shows nothing either way,
    as when the answer was cut at its limit."""
    if check.name == STREAM:
        return _streamed(heard)
    if check.name == EMBEDDING:
        good = len(heard.vectors) == 1 and len(heard.vectors[0]) > 0
        return (True, "") if good else (False, "there was no vector in the answer")
    if check.name == RERANK:
        good = len(heard.scores) == 1
        return (True, "") if good else (False, "there was no score in the answer")
    if check.name == TOOLS:
        shown, why = _called(heard), "it did not call the tool"
    else:
        shown, why = _object(heard, exact=check.name == JSON_SCHEMA), "its answer was no such JSON"
    if shown:
        return True, ""
    return (None, "the answer was cut off") if heard.finish == "length" else (False, why)


def _streamed(heard: Heard) -> tuple[bool | None, str]:
    took = heard.first_token_ms()
    if took is None:
        return False, "the answer was empty"
    if took > FIRST_TOKEN_SECONDS_MAX * 1000:
        return False, (
            f"the first token took {took / 1000:.1f} s; the limit is {FIRST_TOKEN_SECONDS_MAX:.0f}"
        )
    return True, ""


def _called(heard: Heard) -> bool:
    for name, arguments in heard.calls.values():
        if name == "get_weather":
            found = _decoded(arguments)
            return isinstance(found, dict) and isinstance(found.get("city"), str)
    return False


def _object(heard: Heard, *, exact: bool) -> bool:
    found = _decoded(heard.text)
    if not isinstance(found, dict):
        return False
    return not exact or (list(found) == ["city"] and isinstance(found["city"], str))


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return None


def _honours(offer: Offer, param: str) -> bool:
    return offer.supported_params is None or param in offer.supported_params


def _chat(
    offer: Offer, name: str, prompt: str, tokens: int, *, stream: bool = False, **params: Any
) -> Check:
    request = ChatRequest(
        model=offer.model, messages=[Message(role="user", content=prompt)], **params
    )
    # As the gateway does: what the offer does not honour is not sent.
    if _honours(offer, "max_tokens"):
        request.max_tokens = tokens
    elif _honours(offer, "max_completion_tokens"):
        request.max_completion_tokens = tokens
    if stream:
        request.stream = True if _honours(offer, "stream") else UNSET
        if _honours(offer, "stream_options"):
            request.stream_options = StreamOptions(include_usage=True)
    return Check(
        name=name,
        request=request,
        stream=stream,
        first_event_s=3 * FIRST_TOKEN_SECONDS_MAX if stream else ANSWER_SECONDS_MAX,
        tokens_max=tokens,
    )
