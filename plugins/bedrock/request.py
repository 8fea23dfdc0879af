"""A canonical chat written as a request of Amazon Bedrock's Converse API.

Source: boto/botocore, ``data/bedrock-runtime/2023-09-30/service-2.json`` (``ConverseRequest``).
What Converse has no field for goes to the model's own, in ``additionalModelRequestFields``.
"""

import base64
import hashlib

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
from plugins.anthropic.request import check_values, refused, stops_of, tokens_max_of
from plugins.bedrock.models import Model
from plugins.chat import ChatRequest, Object
from plugins.contract import InferenceCall
from plugins.tasks import Media

_STOPS_MAX = 2500
_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_NOVA_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}
_encoder = msgspec.json.Encoder()


def encode(call: InferenceCall, conversation: Conversation, model: Model) -> bytes:
    """The body. Raises AdapterError (BAD_REQUEST) that names what cannot be sent."""
    asked = call.chat
    writer = _Writer(model)
    body: Object = {}
    if conversation.system:
        body["system"] = [part for text in conversation.system for part in writer.parts(text)]
    body["messages"] = [
        {"role": turn.role, "content": [part for b in turn.blocks for part in writer.parts(b)]}
        for turn in conversation.turns
    ]
    body["inferenceConfig"] = _inference(asked)
    fields: Object = {}
    _put_tools(asked, conversation, model, body, fields)
    _put_reasoning(asked, conversation, model, body, fields)
    if isinstance(asked.top_k, int) and asked.top_k > 0:
        top_k = {"topK" if model.family.startswith("nova") else "top_k": asked.top_k}
        fields |= {"inferenceConfig": top_k} if model.family.startswith("nova") else top_k
    if (want := schema.wanted(asked)) is not None:
        text = _encoder.encode(schema.relaxed(want[1], "response_format")).decode()
        structure = {"jsonSchema": {"schema": text, "name": want[0]}}
        output = body.setdefault("outputConfig", {})
        output["textFormat"] = {"type": "json_schema", "structure": structure}
    if fields:
        body["additionalModelRequestFields"] = fields
    return _encoder.encode(body)


def _inference(asked: ChatRequest) -> Object:
    check_values(asked)
    found: Object = {"maxTokens": tokens_max_of(asked)}
    for name, value in (("temperature", asked.temperature), ("topP", asked.top_p)):
        if isinstance(value, int | float):
            found[name] = value
    if stops := stops_of(asked)[:_STOPS_MAX]:
        found["stopSequences"] = stops
    return found


def _put_tools(
    asked: ChatRequest, conversation: Conversation, model: Model, body: Object, fields: Object
) -> None:
    known, choice = tools.tools_of(asked), tools.choice_of(asked)
    if not known:
        if choice is not None and choice.kind in ("any", "tool"):
            raise refused("tool_choice", "tool_choice: there are no tools")
        known, choice = tools.tools_used(conversation), None
    elif choice is not None and choice.kind == "none":
        # Converse has no such choice. Without the tools it is the same, unless some were called.
        if conversation.has_results():
            raise refused("tool_choice", "tool_choice: this provider cannot forbid tools in use")
        known, choice = [], None
    if not known:
        return
    if asked.parallel_tool_calls is False:
        if not model.switches_parallel:
            raise refused("parallel_tool_calls", "parallel_tool_calls: cannot be turned off here")
        fields["tool_choice"] = {"disable_parallel_tool_use": True}
    written = []
    for tool in known:
        written.append({"toolSpec": _spec(tool, model)})
        if tool.cache is not None:
            written.append(_cache_point(tool.cache))
    body["toolConfig"] = {"tools": written}
    if choice is not None:
        named = {"name": choice.name} if choice.name else {}
        body["toolConfig"]["toolChoice"] = {choice.kind: named}


def _spec(tool: tools.Tool, model: Model) -> Object:
    strict = tool.strict and model.structured
    found: Object = {
        "name": tool.name,
        "inputSchema": {"json": schema.relaxed(tool.schema, "tools") if strict else tool.schema},
    }
    if tool.description.strip():
        found["description"] = tool.description
    if strict:
        found["strict"] = True
    return found


def _put_reasoning(
    asked: ChatRequest, conversation: Conversation, model: Model, body: Object, fields: Object
) -> None:
    wish = thinking.wish_of(asked)
    if model.family == "claude":
        found = thinking.thinking_of(wish, model.abilities, tokens_max_of(asked))
        block = found.block
        budgeted = block is not None and block["type"] == "enabled"
        if block is not None and not (budgeted and conversation.calls_without_thoughts()):
            fields["thinking"] = block
        if found.effort is not None:
            body["outputConfig"] = {"effort": found.effort}
        return
    if not wish.on and not wish.off:
        return
    if wish.tokens is not None or model.family not in ("nova-2", "gpt-oss"):
        raise refused(wish.param, f"{wish.param}: this model takes no such wish")
    if model.family == "nova-2":
        if wish.off:
            fields["reasoningConfig"] = {"type": "disabled"}
            return
        effort = _NOVA_EFFORTS.get(wish.effort or "")
        if effort is None:
            raise refused(wish.param, f"{wish.param}: expected {', '.join(_NOVA_EFFORTS)}")
        fields["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": effort}
    elif wish.effort not in ("low", "medium", "high"):
        raise refused(wish.param, f"{wish.param}: expected low, medium, high")
    else:
        fields["reasoning_effort"] = wish.effort


class _Writer:
    """Writes the blocks of one request: documents in it have names of their own."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._documents = 0

    def parts(self, block: Block) -> list[Object]:
        """A block, and a cache point behind it where the caller wants one; thoughts go to Claude
        only, who made them."""
        if isinstance(block, Text | Picture | Document):
            written = self._content(block)
            return [written] if block.cache is None else [written, _cache_point(block.cache)]
        if isinstance(block, Call):
            use = {"toolUseId": self._id(block.id), "name": block.name, "input": block.arguments}
            return [{"toolUse": use}]
        if isinstance(block, Result):
            content = [self._content(inner) for inner in block.blocks]
            found: Object = {"toolUseId": self._id(block.id), "content": content}
            # A cache point has no place in a result, so it comes behind it.
            points = [_cache_point(b.cache) for b in block.blocks if b.cache is not None][-1:]
            return [{"toolResult": found}, *points]
        if self._model.family != "claude":
            return []
        if isinstance(block, Thought):
            text = {"text": block.text, "signature": block.signature}
            return [{"reasoningContent": {"reasoningText": text}}]
        return [{"reasoningContent": {"redactedContent": block.data}}]

    def _content(self, block: Text | Picture | Document) -> Object:
        if isinstance(block, Text):
            return {"text": block.text}
        data = base64.b64encode(block.media.data or b"").decode()
        if isinstance(block, Picture):
            form = block.media.media_type.removeprefix("image/")
            return {"image": {"format": form, "source": {"bytes": data}}}
        self._documents += 1
        # Amazon advises against names that callers choose: models read them as instructions.
        name = f"document-{self._documents}"
        source = {"bytes": data}
        return {"document": {"format": _format(block.media), "name": name, "source": source}}

    def _id(self, given: str) -> str:
        """Mistral's models take ids of nine letters and digits only."""
        if self._model.family != "mistral":
            return given
        return hashlib.sha256(given.encode()).hexdigest()[:9]


def _cache_point(cache: Object) -> Object:
    ttl = {"ttl": cache["ttl"]} if "ttl" in cache else {}
    return {"cachePoint": {"type": "default", **ttl}}


def _format(media: Media) -> str:
    if (media.data or b"").startswith(b"%PDF-"):
        return "pdf"
    found = _FORMATS.get(media.media_type.partition(";")[0].strip().lower())
    if found is None:
        raise refused("messages", "a file's media type is not one that this provider reads")
    return found
