"""A canonical chat written as a request of Anthropic's Messages API.

Source: anthropics/anthropic-sdk-python, ``types/message_create_params.py`` and the types in it.
"""

import base64
from hashlib import sha256
from typing import Any

import msgspec

from plugins.anthropic import schema, thinking, tools
from plugins.anthropic.conversation import (
    Block,
    Call,
    Conversation,
    Document,
    Picture,
    Result,
    Text,
    Thought,
)
from plugins.anthropic.models import Abilities
from plugins.chat import ChatRequest, Object
from plugins.contract import AdapterError, FailureKind, InferenceCall
from plugins.tasks import Media

SUPPORTED_PARAMS = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "stop", "stream", "stream_options"),
        *("tools", "tool_choice", "parallel_tool_calls", "user", "safety_identifier"),
    }
)
"""What every model takes; ``params_of`` adds what a model's abilities allow."""

_TOKENS_MAX_DEFAULT = 4096
_USER_LENGTH_MAX = 256
_TEXT_TYPES = ("text/", "application/json", "application/xml")
_encoder = msgspec.json.Encoder()


def params_of(can: Abilities) -> frozenset[str]:
    """The parameters that a model of such abilities honours."""
    found = set(SUPPORTED_PARAMS)
    if can.sampling:
        found |= {"temperature", "top_p", "top_k"}
    if can.thinks:
        found |= {"reasoning", "reasoning_effort"}
    if can.structured:
        found |= {"response_format", "structured_outputs"}
    return frozenset(found)


def encode(call: InferenceCall, conversation: Conversation, can: Abilities) -> bytes:
    """The body. Raises AdapterError (BAD_REQUEST) that names what cannot be sent."""
    request = call.chat
    tokens_max = tokens_max_of(request)
    body: Object = {"model": call.upstream_id, "max_tokens": tokens_max}
    if conversation.system:
        body["system"] = [_block(text) for text in conversation.system]
    body["messages"] = [
        {"role": turn.role, "content": [_block(block) for block in turn.blocks]}
        for turn in conversation.turns
    ]
    if call.stream:
        body["stream"] = True
    _put_sampling(request, body)
    _put_tools(request, conversation, can, body)
    _put_output(request, conversation, can, tokens_max, body)
    user = request.safety_identifier or request.user
    if isinstance(user, str) and user:
        fits = len(user) <= _USER_LENGTH_MAX
        body["metadata"] = {"user_id": user if fits else sha256(user.encode()).hexdigest()}
    return _encoder.encode(body)


def tokens_max_of(request: ChatRequest) -> int:
    """The most tokens of the answer: the API must be told, so there is a default."""
    return request.output_tokens_limit() or _TOKENS_MAX_DEFAULT


def check_values(request: ChatRequest) -> None:
    """Raises AdapterError (BAD_REQUEST) for values that both providers refuse."""
    if request.answers() > 1:
        raise refused("n", "n: this provider gives one answer per request")
    temperature = request.temperature
    if isinstance(temperature, int | float) and temperature > 1:
        raise refused("temperature", "temperature: this provider takes 0 to 1")
    if request.logprobs is True:
        raise refused("logprobs", "logprobs: this provider gives none")


def stops_of(request: ChatRequest) -> list[str]:
    """The stop sequences. Blank ones are refused upstream (``must contain non-whitespace``)."""
    said = request.stop
    stops = [said] if isinstance(said, str) else list(said) if isinstance(said, list) else []
    if any(not stop.strip() for stop in stops):
        raise refused("stop", "stop: this provider takes no sequences of white space alone")
    return stops


def refused(param: str, message: str) -> AdapterError:
    """The caller's mistake in a parameter."""
    return AdapterError(FailureKind.BAD_REQUEST, message, param=param)


def _put_sampling(request: ChatRequest, body: Object) -> None:
    check_values(request)
    if stops := stops_of(request):
        body["stop_sequences"] = stops
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if isinstance(value, int | float):
            body[name] = value
    # 0 and -1 mean "no limit" to the servers that the parameter comes from.
    if isinstance(request.top_k, int) and request.top_k > 0:
        body["top_k"] = request.top_k


def _put_tools(
    request: ChatRequest, conversation: Conversation, can: Abilities, body: Object
) -> None:
    known, choice = tools.tools_of(request), tools.choice_of(request)
    if not known:
        if choice is not None and choice.kind in ("any", "tool"):
            raise refused("tool_choice", "tool_choice: there are no tools")
        if not conversation.has_results():
            return
        known, choice = tools.tools_used(conversation), tools.Choice(kind="none")
    body["tools"] = [_tool(tool, can) for tool in known]
    written: Object | None = None
    if choice is not None:
        written = {"type": choice.kind, **({"name": choice.name} if choice.name else {})}
    if request.parallel_tool_calls is False:
        written = written or {"type": "auto"}
        if written["type"] != "none":
            written["disable_parallel_tool_use"] = True
    if written is not None:
        body["tool_choice"] = written


def _tool(tool: tools.Tool, can: Abilities) -> Object:
    strict = tool.strict and can.structured
    written: Object = {
        "name": tool.name,
        "input_schema": schema.relaxed(tool.schema, "tools") if strict else tool.schema,
    }
    if tool.description:
        written["description"] = tool.description
    if strict:
        written["strict"] = True
    return _cached(written, tool.cache)


def _put_output(
    request: ChatRequest, conversation: Conversation, can: Abilities, tokens_max: int, body: Object
) -> None:
    output: Object = {}
    thought = thinking.thinking_of(thinking.wish_of(request), can, tokens_max)
    block = thought.block
    # With a budget, a turn that called tools must begin with the thought that led to it. A client
    # that did not send it back gets this turn unthought instead of an error (Anthropic's advice).
    if block is not None:
        budgeted = block["type"] == "enabled"
        if not (budgeted and conversation.calls_without_thoughts()):
            body["thinking"] = block
    if thought.effort is not None:
        output["effort"] = thought.effort
    if (want := schema.wanted(request)) is not None:
        if not can.structured:
            raise refused("response_format", "response_format: this model follows no JSON schema")
        output["format"] = {
            "type": "json_schema",
            "schema": schema.relaxed(want[1], "response_format"),
        }
    if output:
        body["output_config"] = output


def _block(block: Block) -> Object:
    if isinstance(block, Text):
        return _cached({"type": "text", "text": block.text}, block.cache)
    if isinstance(block, Picture):
        return _cached({"type": "image", "source": _source(block.media)}, block.cache)
    if isinstance(block, Document):
        written = {"type": "document", "source": _document(block.media)}
        if block.name:
            written["title"] = block.name
        return _cached(written, block.cache)
    if isinstance(block, Call):
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}
    if isinstance(block, Result):
        content = [_block(inner) for inner in block.blocks]
        result: Object = {"type": "tool_result", "tool_use_id": block.id}
        return {**result, "content": content} if content else result
    if isinstance(block, Thought):
        return {"type": "thinking", "thinking": block.text, "signature": block.signature}
    return {"type": "redacted_thinking", "data": block.data}


def _cached(written: dict[str, Any], cache: Object | None) -> Object:
    return {**written, "cache_control": cache} if cache is not None else written


def _source(media: Media) -> Object:
    if media.data is None:
        return {"type": "url", "url": media.url}
    data = base64.b64encode(media.data).decode()
    return {"type": "base64", "media_type": media.media_type, "data": data}


def _document(media: Media) -> Object:
    if media.data is None or media.data.startswith(b"%PDF-"):
        pdf = Media(data=media.data, url=media.url, media_type="application/pdf")
        return _source(pdf)
    if media.media_type.startswith(_TEXT_TYPES):
        try:
            text = media.data.decode()
        except UnicodeDecodeError as error:
            raise refused("messages", "a file of text is not UTF-8") from error
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise refused("messages", "files are read as PDF or text only by this provider")
