"""What Amazon Bedrock's Converse refuses: a check of a request's body, and of its signature.

Source: boto/botocore, ``data/bedrock-runtime/2023-09-30/service-2.json``; the rules that are not in
it, and their texts, are of refusals in public issues.
"""

import base64
import hashlib
import hmac
import json
import re
from typing import Any
from urllib.parse import quote

Json = dict[str, Any]
KEY_ID, SECRET = "AKIDPLAYED", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "session/token+=="
API_KEY = "ABSKQmVkcm9ja0FQSUtleS1wbGF5ZWQ="

_TOP = {
    *("messages", "system", "inferenceConfig", "toolConfig", "outputConfig"),
    "additionalModelRequestFields",
}
_FIELDS = {
    "claude": {"thinking", "top_k", "tool_choice"},
    "nova": {"inferenceConfig", "reasoningConfig"},
    "openai": {"reasoning_effort"},
    "mistral": {"top_k"},
}
_MAGIC = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}
_DOCUMENTS = {"pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"}


class Refused(Exception):
    """The request breaks a rule."""


def signature_of(thought: str) -> str:
    """The signature under a thought; the real one is opaque too."""
    return "sig" + hashlib.sha256(b"secret" + thought.encode()).hexdigest()


def is_signed(headers: dict[str, str], target: str, body: bytes) -> bool:
    """Whether the request carries our API key, or a signature that fits it."""
    said = headers.get("authorization", "")
    if said.startswith("Bearer "):
        return said == f"Bearer {API_KEY}"
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\S+)/(\d{8})/(\S+)/bedrock/aws4_request, "
        r"SignedHeaders=(\S+), Signature=([0-9a-f]{64})",
        said,
    )
    if found is None or found[1] != KEY_ID or found[3] != "eu-central-2":
        return False
    names = found[4].split(";")
    if names != sorted(names) or not {"host", "x-amz-date", "content-type"} <= set(names):
        return False
    if headers.get("x-amz-security-token", TOKEN) != TOKEN:
        return False
    if ("x-amz-security-token" in headers) != ("x-amz-security-token" in names):
        return False
    lines = ["POST", quote(target, safe="/-_.~"), ""]
    lines += [f"{name}:{headers[name]}" for name in names]
    lines += ["", found[4], hashlib.sha256(body).hexdigest()]
    hashed = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    moment = headers["x-amz-date"]
    scope = f"{found[2]}/{found[3]}/bedrock/aws4_request"
    told = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}"
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    expected = hmac.new(key, told.encode(), hashlib.sha256).hexdigest()
    return moment.startswith(found[2]) and hmac.compare_digest(expected, found[5])


def complaint(model_id: str, body: Json) -> str | None:
    """What Bedrock would say of this body, None where it takes it."""
    try:
        _check(model_id, body)
    except Refused as error:
        return str(error)
    return None


def _must(holds: bool, rule: str) -> None:
    if not holds:
        raise Refused(rule)


def _keys(holder: Any, required: set[str], optional: set[str], where: str) -> None:
    _must(isinstance(holder, dict), f"{where}: expected a structure")
    for name in sorted(required - set(holder)):
        raise Refused(f"Value null at '{where}.{name}' failed to satisfy constraint: not null")
    for name in sorted(set(holder) - required - optional):
        raise Refused(f"{where}: extraneous key [{name}] is not permitted")


def _one(holder: Any, kinds: set[str], where: str) -> str:
    _must(isinstance(holder, dict) and len(holder) == 1, f"{where}: a union has one member")
    kind = str(next(iter(holder)))
    _must(kind in kinds, f"{where}: unknown member {kind}")
    return kind


def _check(model_id: str, body: Json) -> None:
    _keys(body, {"messages"}, _TOP, "body")
    config = body.get("inferenceConfig", {})
    _keys(config, set(), {"maxTokens", "temperature", "topP", "stopSequences"}, "inferenceConfig")
    _must(config.get("maxTokens", 1) >= 1, "inferenceConfig.maxTokens: at least 1")
    for name in ("temperature", "topP"):
        _must(0 <= config.get(name, 0) <= 1, f"inferenceConfig.{name}: must be 0 to 1")
    stops = config.get("stopSequences", ["x"])
    _must(0 < len(stops) <= 2500 and all(stops), "inferenceConfig.stopSequences: length")
    for number, part in enumerate(body.get("system", ())):
        where = f"system.{number}"
        if _one(part, {"text", "cachePoint"}, where) == "text":
            _must(bool(part["text"].strip()), f"The text field at {where} is blank.")
    family = next((name for name in _FIELDS if name in model_id), "")
    fields = body.get("additionalModelRequestFields", {})
    _keys(fields, set(), _FIELDS.get(family, set()), "additionalModelRequestFields")
    _check_messages(body["messages"], family)
    _check_tools(body)
    _check_thinking(model_id, body, fields)
    _check_output(body.get("outputConfig", {}))


def _check_messages(messages: Any, family: str) -> None:
    _must(bool(messages), "messages: at least one")
    before = ""
    open_calls: set[str] = set()
    names: list[str] = []
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        _keys(message, {"role", "content"}, set(), where)
        role = message["role"]
        _must(role in ("user", "assistant"), f"{where}.role: unknown")
        _must(number > 0 or role == "user", "A conversation must start with a user message.")
        _must(role != before, "A conversation must alternate between user and assistant roles.")
        before = role
        _must(bool(message["content"]), f"The content field at {where} is empty.")
        calls: set[str] = set()
        answered: set[str] = set()
        for index, part in enumerate(message["content"]):
            inner = f"{where}.content.{index}"
            _check_part(part, role, family, inner, names)
            if "toolUse" in part:
                calls.add(part["toolUse"]["toolUseId"])
            if "toolResult" in part:
                answered.add(part["toolResult"]["toolUseId"])
        _must(answered == open_calls, f"Expected toolResult blocks at {where}.content")
        open_calls = calls
    _must(not open_calls, "Expected toolResult blocks at the end")
    _must(len(names) == len(set(names)), "The document names must be unique.")


def _check_part(part: Json, role: str, family: str, where: str, names: list[str]) -> None:
    kinds = {"text", "cachePoint"}
    kinds |= {"image", "document", "toolResult"} if role == "user" else set()
    if role == "assistant":
        kinds |= {"toolUse", "reasoningContent"} if family == "claude" else {"toolUse"}
    kind = _one(part, kinds, where)
    inner = part[kind]
    if kind == "text":
        _must(
            bool(inner.strip()), f"The text field in the ContentBlock object at {where} is blank."
        )
    elif kind == "image":
        _check_image(inner, where)
    elif kind == "document":
        _check_document(inner, where, names)
    elif kind == "toolUse":
        _keys(inner, {"toolUseId", "name", "input"}, set(), where)
        _check_id(inner["toolUseId"], family, where)
        _must(isinstance(inner["input"], dict), f"{where}.input: expected an object")
    elif kind == "toolResult":
        _keys(inner, {"toolUseId", "content"}, {"status"}, where)
        _check_id(inner["toolUseId"], family, where)
        for piece in inner["content"]:
            form = _one(piece, {"text", "json", "image", "document"}, where)
            if form == "image":
                _check_image(piece[form], where)
            elif form == "document":
                _check_document(piece[form], where, names)
    elif kind == "reasoningContent":
        if _one(inner, {"reasoningText", "redactedContent"}, where) == "reasoningText":
            said = inner["reasoningText"]
            _keys(said, {"text", "signature"}, set(), where)
            _must(said["signature"] == signature_of(said["text"]), "Invalid signature")
        else:
            base64.b64decode(inner["redactedContent"], validate=True)
    else:
        _check_cache(inner, where)


def _check_id(given: Any, family: str, where: str) -> None:
    pattern = r"[a-zA-Z0-9]{9}" if family == "mistral" else r"[a-zA-Z0-9_.:-]{1,64}"
    _must(bool(re.fullmatch(pattern, str(given))), f"{where}.toolUseId: pattern")


def _check_cache(point: Json, where: str) -> None:
    _keys(point, {"type"}, {"ttl"}, where)
    _must(point["type"] == "default" and point.get("ttl", "5m") in ("5m", "1h"), f"{where}: cache")


def _check_image(image: Json, where: str) -> None:
    _keys(image, {"format", "source"}, set(), where)
    _must(image["format"] in _MAGIC, f"{where}.format: unknown")
    data = base64.b64decode(image["source"]["bytes"], validate=True)
    _must(data.startswith(_MAGIC[image["format"]]), f"{where}: Could not process image")


def _check_document(document: Json, where: str, names: list[str]) -> None:
    _keys(document, {"format", "name", "source"}, set(), where)
    _must(document["format"] in _DOCUMENTS, f"{where}.format: unknown")
    good = re.fullmatch(r"(?!.*\s\s)[a-zA-Z0-9\s\-()\[\]]{1,200}", document["name"])
    _must(bool(good), f"{where}: The file name contains invalid characters")
    names.append(document["name"])
    _must(bool(base64.b64decode(document["source"]["bytes"], validate=True)), f"{where}: empty")


def _check_tools(body: Json) -> None:
    used = any("toolUse" in part for m in body["messages"] for part in m["content"])
    rule = "The toolConfig field must be defined when using toolUse and toolResult content blocks."
    _must("toolConfig" in body or not used, rule)
    if "toolConfig" not in body:
        return
    config = body["toolConfig"]
    _keys(config, {"tools"}, {"toolChoice"}, "toolConfig")
    _must(bool(config["tools"]), "toolConfig.tools: at least one")
    names = []
    for number, tool in enumerate(config["tools"]):
        where = f"toolConfig.tools.{number}"
        if _one(tool, {"toolSpec", "cachePoint"}, where) == "cachePoint":
            _check_cache(tool["cachePoint"], where)
            continue
        spec = tool["toolSpec"]
        _keys(spec, {"name", "inputSchema"}, {"description", "strict"}, where)
        _must(bool(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", spec["name"])), f"{where}.name: pattern")
        _must(bool(spec.get("description", "x").strip()), f"{where}.description: blank")
        schema = spec["inputSchema"][_one(spec["inputSchema"], {"json"}, where)]
        _must(schema.get("type") == "object", f"{where}.inputSchema.json.type: must be object")
        names.append(spec["name"])
    if "toolChoice" in config:
        kind = _one(config["toolChoice"], {"auto", "any", "tool"}, "toolConfig.toolChoice")
        _must(kind != "tool" or config["toolChoice"]["tool"]["name"] in names, "toolChoice: name")


def _check_thinking(model_id: str, body: Json, fields: Json) -> None:
    thinking = fields.get("thinking", {"type": "disabled"})
    kind = thinking["type"]
    newest = "opus-4-7" in model_id
    _must(not newest or kind != "enabled", "thinking.type.enabled is not supported")
    _must(newest or "4-6" in model_id or kind != "adaptive", "adaptive thinking is not supported")
    if newest:
        bad = {"temperature", "topP"} & set(body.get("inferenceConfig", {}))
        _must(not bad, "`temperature` is deprecated for this model")
    if kind == "enabled":
        most = body["inferenceConfig"]["maxTokens"]
        _must(1024 <= thinking["budget_tokens"] < most, "thinking.budget_tokens: out of range")
        for message in reversed(body["messages"]):
            if message["role"] == "assistant":
                kinds = [next(iter(part)) for part in message["content"]]
                good = "toolUse" not in kinds or kinds[0] == "reasoningContent"
                _must(good, "Expected `thinking` or `redacted_thinking`, but found `tool_use`")
                break
    choice = fields.get("tool_choice")
    _must(choice in (None, {"disable_parallel_tool_use": True}), "tool_choice: unknown")


def _check_output(output: Json) -> None:
    _keys(output, set(), {"effort", "textFormat"}, "outputConfig")
    effort = output.get("effort", "low")
    _must(effort in ("low", "medium", "high", "xhigh", "max"), "outputConfig.effort: unknown")
    if (form := output.get("textFormat")) is not None:
        _keys(form, {"type", "structure"}, set(), "outputConfig.textFormat")
        _must(form["type"] == "json_schema", "outputConfig.textFormat.type: unknown")
        definition = form["structure"]["jsonSchema"]
        _keys(definition, {"schema"}, {"name", "description"}, "jsonSchema")
        _must(isinstance(json.loads(definition["schema"]), dict), "jsonSchema.schema: not JSON")
