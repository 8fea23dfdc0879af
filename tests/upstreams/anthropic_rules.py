"""What Anthropic's Messages API refuses, as a check of a request's body."""

import base64
import hashlib
import re
from typing import Any

Json = dict[str, Any]

_TOP = {
    *("model", "max_tokens", "messages", "system", "stream", "stop_sequences", "temperature"),
    *("top_p", "top_k", "metadata", "tools", "tool_choice", "thinking", "output_config"),
}
_BLOCKS: dict[str, tuple[set[str], set[str]]] = {
    "text": ({"text"}, {"cache_control"}),
    "image": ({"source"}, {"cache_control"}),
    "document": ({"source"}, {"cache_control", "title"}),
    "tool_use": ({"id", "name", "input"}, {"cache_control"}),
    "tool_result": ({"tool_use_id"}, {"cache_control", "content", "is_error"}),
    "thinking": ({"thinking", "signature"}, set()),
    "redacted_thinking": ({"data"}, set()),
}
_BY_ROLE = {
    "user": {"text", "image", "document", "tool_result"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking"},
}
_MAGIC = {
    "image/png": b"\x89PNG",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
    "application/pdf": b"%PDF-",
}
_GRAMMAR = {
    *("type", "enum", "const", "title", "default", "description", "properties", "required"),
    *("additionalProperties", "items", "anyOf", "allOf", "$ref", "$defs", "definitions", "format"),
    "minItems",
}


class Refused(Exception):
    """The request breaks a rule."""


def signature_of(thought: str) -> str:
    """The signature under a thought; the real one is opaque too."""
    return "sig" + hashlib.sha256(b"secret" + thought.encode()).hexdigest()


def complaint(body: Json) -> str | None:
    """What the API would say of this body, None where it takes it."""
    try:
        _check(body)
    except Refused as error:
        return str(error)
    return None


def _must(holds: bool, rule: str) -> None:
    if not holds:
        raise Refused(rule)


def _keys(holder: Any, required: set[str], optional: set[str], where: str) -> None:
    _must(isinstance(holder, dict), f"{where}: Input should be a valid dictionary")
    for name in sorted(required - set(holder)):
        raise Refused(f"{where}.{name}: Field required")
    for name in sorted(set(holder) - required - optional):
        raise Refused(f"{where}.{name}: Extra inputs are not permitted")


def _check(body: Json) -> None:
    _keys(body, {"model", "max_tokens", "messages"}, _TOP, "body")
    tokens = body["max_tokens"]
    _must(isinstance(tokens, int) and tokens >= 1, "max_tokens: must be at least 1")
    for name, most in (("temperature", 1), ("top_p", 1)):
        value = body.get(name, 0)
        _must(isinstance(value, int | float) and 0 <= value <= most, f"{name}: range: 0..1")
    top_k = body.get("top_k", 1)
    _must(isinstance(top_k, int) and top_k >= 0, "top_k: must be at least 0")
    for stop in body.get("stop_sequences", ()):
        rule = "stop_sequences: each stop sequence must contain non-whitespace"
        _must(isinstance(stop, str) and bool(stop.strip()), rule)
    _keys(body.get("metadata", {}), set(), {"user_id"}, "metadata")
    _must(len(body.get("metadata", {}).get("user_id", "")) <= 256, "metadata.user_id: too long")
    _check_system(body)
    _check_messages(body["messages"])
    _check_tools(body)
    _check_thinking(body)
    _check_output(body)


def _check_system(body: Json) -> None:
    for number, block in enumerate(body.get("system", ())):
        _must(block.get("type") == "text", "system: only text")
        _check_block(block, f"system.{number}")


def _check_messages(messages: Any) -> None:
    _must(
        isinstance(messages, list) and bool(messages), "messages: at least one message is required"
    )
    open_calls: list[str] = []
    before = ""
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        _keys(message, {"role", "content"}, set(), where)
        role = message["role"]
        _must(role in _BY_ROLE, f'{where}.role: Unexpected role "{role}"')
        _must(number > 0 or role == "user", 'messages: first message must use the "user" role')
        _must(role != before, f'{where}: roles must alternate between "user" and "assistant"')
        before = role
        content = message["content"]
        _must(isinstance(content, list) and bool(content), f"{where}: content must be non-empty")
        for index, block in enumerate(content):
            inner = f"{where}.content.{index}"
            _must(block.get("type") in _BY_ROLE[role], f"{inner}: block not permitted for {role}")
            _check_block(block, inner)
        open_calls = _check_pairs(content, open_calls, where)
    _must(not open_calls, "`tool_use` ids were found without `tool_result` blocks")


def _check_pairs(content: list[Json], open_calls: list[str], where: str) -> list[str]:
    answered = [block["tool_use_id"] for block in content if block["type"] == "tool_result"]
    for found in answered:
        rule = f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {found}"
        _must(found in open_calls, rule)
    _must(len(answered) == len(set(answered)), f"{where}: multiple `tool_result` of one id")
    rule = "`tool_use` ids were found without `tool_result` blocks immediately after"
    _must(set(answered) == set(open_calls), rule)
    kinds = [block["type"] for block in content]
    _must(
        "tool_result" not in kinds[len(answered) :], f"{where}: tool_result blocks must come first"
    )
    return [block["id"] for block in content if block["type"] == "tool_use"]


def _check_block(block: Json, where: str) -> None:
    kind = block.get("type")
    _must(kind in _BLOCKS, f"{where}.type: unknown")
    required, optional = _BLOCKS[str(kind)]
    _keys(block, required | {"type"}, optional, where)
    if "cache_control" in block:
        _check_cache(block["cache_control"], where)
    if kind == "text":
        rule = f"{where}: text content blocks must contain non-whitespace text"
        _must(isinstance(block["text"], str) and bool(block["text"].strip()), rule)
    elif kind == "image":
        _check_source(block["source"], where, set(_MAGIC) - {"application/pdf"})
    elif kind == "document":
        _check_source(block["source"], where, {"application/pdf"})
    elif kind == "tool_use":
        _check_id(block["id"], where)
        _must(isinstance(block["input"], dict), f"{where}.input: Input should be a dictionary")
    elif kind == "tool_result":
        _check_id(block["tool_use_id"], where)
        for index, inner in enumerate(block.get("content", ())):
            _must(inner["type"] in ("text", "image", "document"), f"{where}: not permitted")
            _check_block(inner, f"{where}.content.{index}")
    elif kind == "thinking":
        rule = f"{where}: Invalid `signature` in `thinking` block"
        _must(block["signature"] == signature_of(block["thinking"]), rule)


def _check_cache(cache: Json, where: str) -> None:
    _keys(cache, {"type"}, {"ttl"}, f"{where}.cache_control")
    _must(cache["type"] == "ephemeral", f"{where}.cache_control.type: unknown")


def _check_id(given: Any, where: str) -> None:
    good = isinstance(given, str) and re.fullmatch(r"[a-zA-Z0-9_-]+", given)
    _must(bool(good), f"{where}.id: String should match pattern '^[a-zA-Z0-9_-]+$'")


def _check_source(source: Json, where: str, types: set[str]) -> None:
    kind = source.get("type")
    if kind == "url":
        _keys(source, {"type", "url"}, set(), f"{where}.source")
        _must(source["url"].startswith("https://"), f"{where}: Only HTTPS URLs are supported.")
        return
    _keys(source, {"type", "media_type", "data"}, set(), f"{where}.source")
    if kind == "text":
        _must(source["media_type"] == "text/plain", f"{where}: text/plain only")
        return
    _must(kind == "base64" and source["media_type"] in types, f"{where}.source.media_type: unknown")
    data = base64.b64decode(source["data"], validate=True)
    rule = f"{where}: does not match the provided media type {source['media_type']}"
    _must(data.startswith(_MAGIC[source["media_type"]]), rule)


def _check_tools(body: Json) -> None:
    tools = body.get("tools", [])
    for number, tool in enumerate(tools):
        where = f"tools.{number}"
        optional = {"description", "strict", "cache_control"}
        _keys(tool, {"name", "input_schema"}, optional, where)
        good = re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"])
        _must(bool(good), f"{where}.name: String should match pattern")
        _must(tool["input_schema"].get("type") == "object", f"{where}.input_schema.type: 'object'")
        if tool.get("strict"):
            _check_schema(tool["input_schema"], f"{where}.input_schema")
        if "cache_control" in tool:
            _check_cache(tool["cache_control"], where)
    names = [tool["name"] for tool in tools]
    _must(len(names) == len(set(names)), "tools: Tool names must be unique.")
    used = any(b["type"] == "tool_use" for m in body["messages"] for b in m["content"])
    _must(bool(tools) or not used, "Requests which include `tool_use` blocks must define tools")
    if (choice := body.get("tool_choice")) is not None:
        _must(bool(tools), "tool_choice may only be specified while providing tools")
        optional = set() if choice.get("type") == "none" else {"disable_parallel_tool_use"}
        named = {"name"} if choice.get("type") == "tool" else set()
        _keys(choice, {"type", *named}, optional, "tool_choice")
        _must(choice["type"] in ("auto", "any", "tool", "none"), "tool_choice.type: unknown")
        _must(not named or choice["name"] in names, "tool_choice.name: not found in tools")


def _check_thinking(body: Json) -> None:
    thinking = body.get("thinking", {"type": "disabled"})
    kind = thinking["type"]
    _must(kind in ("enabled", "disabled", "adaptive"), "thinking.type: unknown")
    newest = "opus-4-7" in body["model"] or "-5" in body["model"].replace("4-5", "")
    if newest:
        _must(kind != "enabled", 'thinking: "enabled" is not supported by this model')
        for name in ("temperature", "top_p", "top_k"):
            _must(name not in body, f"{name} is deprecated for this model")
    if kind == "enabled":
        _keys(thinking, {"type", "budget_tokens"}, {"display"}, "thinking")
        budget = thinking["budget_tokens"]
        _must(budget >= 1024, "thinking.budget_tokens: must be at least 1024")
        _must(budget < body["max_tokens"], "`max_tokens` must be greater than the budget")
        _must(body.get("temperature", 1) == 1, "`temperature` may only be set to 1 with thinking")
        for message in reversed(body["messages"]):
            if message["role"] == "assistant":
                kinds = [block["type"] for block in message["content"]]
                good = "tool_use" not in kinds or kinds[0] in ("thinking", "redacted_thinking")
                _must(good, "Expected `thinking` or `redacted_thinking`, but found another block")
                break
    elif kind == "adaptive":
        rule = "adaptive thinking is not supported on this model"
        _must(newest or "4-6" in body["model"], rule)
        _keys(thinking, {"type"}, {"display"}, "thinking")
    forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    rule = "Thinking may not be enabled when tool_choice forces tool use."
    _must(kind == "disabled" or not forced, rule)


def _check_output(body: Json) -> None:
    output = body.get("output_config", {})
    _keys(output, set(), {"effort", "format"}, "output_config")
    effort = output.get("effort", "low")
    _must(effort in ("low", "medium", "high", "xhigh", "max"), "output_config.effort: unknown")
    if (form := output.get("format")) is not None:
        _keys(form, {"type", "schema"}, set(), "output_config.format")
        _must(form["type"] == "json_schema", "output_config.format.type: 'json_schema'")
        _check_schema(form["schema"], "output_config.format.schema")


def _check_schema(schema: Any, where: str) -> None:
    if not isinstance(schema, dict):
        return
    for key in sorted(set(schema) - _GRAMMAR):
        raise Refused(f"{where}: For '{schema.get('type')}', property '{key}' is not supported")
    if schema.get("type") == "object":
        rule = f"{where}: 'additionalProperties' must be explicitly set to false"
        _must(schema.get("additionalProperties") is False, rule)
    _must(schema.get("minItems", 0) in (0, 1), f"{where}: minItems other than 0 or 1")
    for key in ("properties", "$defs", "definitions"):
        for name, inner in schema.get(key, {}).items():
            _check_schema(inner, f"{where}.{name}")
    for key in ("anyOf", "allOf"):
        for inner in schema.get(key, ()):
            _check_schema(inner, where)
    _check_schema(schema.get("items"), f"{where}.items")
