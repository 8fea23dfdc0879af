"""Requests as one kind of provider takes them.

For a server of which nothing is known the request goes out as the client wrote it. A preset's
request is shaped: what the provider calls otherwise is renamed, what it would refuse though it asks
for nothing is left out, and what it cannot honour fails by name.
"""

import copy
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET

from plugins.chat import PARAMS, ChatRequest, Message, StreamOptions
from plugins.contract import AdapterError, FailureKind, InferenceCall
from plugins.openai_compatible.preset import Preset, SchemaForm, TextOnly, Thoughts

_encoder = msgspec.json.Encoder()
_WITH_USAGE = StreamOptions(include_usage=True)
# Values that ask for what would happen anyway; null always does.
_IDLE: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "mirostat": (0,),
    "dry_multiplier": (0,),
    "xtc_probability": (0,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("auto",),
    "store": (False,),
    "modalities": (["text"],),
}
_LIMITS = ("max_completion_tokens", "max_tokens")
_THOUGHTS = ("reasoning", "reasoning_content", "reasoning_details")
_MESSAGE_FIELDS = Message.__struct_fields__


def encode_request(call: InferenceCall, shape: "Shape | None" = None) -> bytes:
    """The client's request as sent upstream: our model name for theirs, usage always asked for.

    Raises AdapterError (BAD_REQUEST) for a value that the provider does not take.
    """
    request = copy.copy(call.chat)
    request.model = call.upstream_id
    request.stream = call.stream
    if not call.stream:
        request.stream_options = UNSET
    elif isinstance(request.stream_options, StreamOptions):
        request.stream_options = msgspec.structs.replace(request.stream_options, include_usage=True)
    else:
        request.stream_options = _WITH_USAGE
    if shape is None:
        return _encoder.encode(request)
    return shape.encode(request)


def shape_of(preset: Preset) -> "Shape | None":
    """How a preset's requests are shaped; None where they go out as they are."""
    shape = Shape(preset)
    return shape if shape.does_anything() else None


def deployment_target(upstream_id: str, path: str, api_version: str) -> str:
    """Azure's older form of a path, in which the model's deployment is."""
    name = quote(upstream_id, safe="")
    return f"/deployments/{name}{path}?api-version={quote(api_version, safe='')}"


class Shape:
    """What is done to the requests of one preset."""

    def __init__(self, preset: Preset) -> None:
        self._preset = preset
        self._values = {name: frozenset(taken) for name, taken in preset.values}
        honoured = preset.params
        unknown = () if honoured is None else (n for n in PARAMS if n not in honoured)
        self._maybe_idle = tuple(unknown)
        self._fields = preset.message_fields
        self._mends_messages = (
            not preset.developer_role
            or self._fields is not None
            or preset.thoughts is not Thoughts.AS_GIVEN
            or preset.text_only is not TextOnly.NOBODY
        )

    def does_anything(self) -> bool:
        """Whether any request is changed by it."""
        preset = self._preset
        return bool(
            self._values
            or self._maybe_idle
            or self._mends_messages
            or preset.renamed
            or preset.limit_name
            or preset.schema_form is not SchemaForm.OPENAI
            or not preset.stream_options
        )

    def encode(self, request: ChatRequest) -> bytes:
        """Shape a request that is ours to change, and encode it."""
        preset = self._preset
        for name in self._maybe_idle:
            value = getattr(request, name)
            if value is not UNSET and (value is None or value in _IDLE.get(name, ())):
                setattr(request, name, UNSET)
        if self._values:
            self._check_values(request)
        if preset.limit_name is not None:
            _rename_limit(request, preset.limit_name)
        if not preset.stream_options:
            request.stream_options = UNSET
        if preset.schema_form is not SchemaForm.OPENAI and request.response_format:
            request.response_format = _schema(request.response_format, preset.schema_form)
        if self._mends_messages:
            request.messages = [self._message(message) for message in request.messages]
        further: dict[str, Any] = {}
        for ours, theirs in preset.renamed:
            value = getattr(request, ours)
            if value is not UNSET:
                further[theirs] = value
                setattr(request, ours, UNSET)
        body = _encoder.encode(request)
        # What has no field of ours goes to the end: the model stays first.
        return body[:-1] + b"," + _encoder.encode(further)[1:] if further else body

    def _check_values(self, request: ChatRequest) -> None:
        for name, taken in self._values.items():
            value = getattr(request, name)
            if value is UNSET or value is None or (isinstance(value, str) and value in taken):
                continue
            raise AdapterError(
                FailureKind.BAD_REQUEST,
                f"the provider takes {name} only as {' or '.join(sorted(taken))}",
                param=name,
            )

    def _message(self, message: Message) -> Message:
        """The message itself where nothing is to be changed, else a changed copy."""
        changes: dict[str, Any] = {}
        preset = self._preset
        if message.role == "developer" and not preset.developer_role:
            changes["role"] = "system"
        if preset.text_only is not TextOnly.NOBODY and isinstance(message.content, list):
            user = message.role == "user"
            text = None if user and preset.text_only is TextOnly.ALL_BUT_USER else _flat(message)
            if text is not None:
                changes["content"] = text
        if message.role == "assistant" and preset.thoughts is not Thoughts.AS_GIVEN:
            _place_thoughts(message, preset.thoughts, changes)
        if self._fields is not None:
            for name in _MESSAGE_FIELDS:
                value = changes.get(name, getattr(message, name))
                null = value is None and name != "content"
                if value is not UNSET and (null or name not in self._fields):
                    changes[name] = UNSET
        return msgspec.structs.replace(message, **changes) if changes else message


def _rename_limit(request: ChatRequest, known: str) -> None:
    limit = request.output_tokens_limit()
    for name in _LIMITS:
        if name != known:
            setattr(request, name, UNSET)
    if limit is not None:
        setattr(request, known, limit)


def _schema(asked: Any, form: SchemaForm) -> Any:
    """A JSON schema in the provider's form; other formats as they are."""
    if not isinstance(asked, dict) or asked.get("type") != "json_schema":
        return asked
    inner = asked.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if schema is None:
        return asked
    kind = "json_object" if form is SchemaForm.JSON_OBJECT else "json_schema"
    return {"type": kind, "schema": schema}


def _flat(message: Message) -> str | None:
    """The content's text, where it is nothing but text."""
    texts = []
    for part in message.content or ():
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "\n".join(texts)


def _place_thoughts(message: Message, form: Thoughts, changes: dict[str, Any]) -> None:
    said = message.reasoning_content or message.reasoning
    for name in _THOUGHTS:
        if getattr(message, name) is not UNSET and name != form.value:
            changes[name] = UNSET
    if form is not Thoughts.DROPPED and said and getattr(message, form.value) != said:
        changes[form.value] = said
