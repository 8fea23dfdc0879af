"""What the Gemini API refuses, as a check of a request's body.

Source: googleapis/python-genai (fields, bounds), Google's pages on function calling and thought
signatures, and the texts of real refusals in public issues.
"""

import base64
import hashlib
import json
import re
from typing import Any

Json = dict[str, Any]
UNSIGNED = "skip_thought_signature_validator"
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_CONFIG = {
    *("temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "candidateCount", "seed"),
    *("presencePenalty", "frequencyPenalty", "responseLogprobs", "logprobs", "responseMimeType"),
    *("responseJsonSchema", "thinkingConfig"),
}
_THINKING = {"includeThoughts", "thinkingBudget", "thinkingLevel"}
_LEVELS = {"MINIMAL", "LOW", "MEDIUM", "HIGH"}
_PART_KINDS = {"text", "inlineData", "functionCall", "functionResponse"}


class Refused(Exception):
    """The request breaks a rule."""


def signature_of(signed: Json) -> str:
    """The signature under a part; the real one is opaque too."""
    text = json.dumps({"name": signed.get("name"), "args": signed.get("args") or {}})
    return "sig" + hashlib.sha256(b"secret" + text.encode()).hexdigest()


def complaint(body: Json, model: str) -> str | None:
    """What the API would say of this body, None where it takes it."""
    try:
        _check(body, model)
    except Refused as error:
        return str(error)
    return None


def _must(holds: bool, rule: str) -> None:
    if not holds:
        raise Refused(rule)


def _known(holder: Json, names: set[str], where: str) -> None:
    for name in sorted(set(holder) - names):
        raise Refused(f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}'")


def _check(body: Json, model: str) -> None:
    names = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}
    _known(body, names, "body")
    _must(bool(body.get("contents")), "contents is not specified")
    if "systemInstruction" in body:
        _must(not model.startswith("gemma"), "Developer instruction is not enabled")
        for part in body["systemInstruction"]["parts"]:
            _must(set(part) == {"text"}, "systemInstruction: only text")
    _check_config(body.get("generationConfig", {}), model)
    _check_tools(body)
    for number, content in enumerate(body["contents"]):
        _must(content.get("role") in ("user", "model"), "Please use a valid role: user, model.")
        _must(bool(content.get("parts")), f"contents[{number}].parts must not be empty")
        for part in content["parts"]:
            _check_part(part, content["role"], f"contents[{number}]")
    _check_calls(body["contents"], signs=model.startswith("gemini-3"))


def _check_config(config: Json, model: str) -> None:
    _known(config, _CONFIG, "generation_config")
    for name, low, high in (
        ("temperature", 0, 2),
        ("topP", 0, 1),
        ("topK", 1, 10**6),
        ("maxOutputTokens", 1, 10**7),
        ("candidateCount", 1, 8),
        ("seed", -(2**31), 2**31 - 1),
        ("logprobs", 0, 20),
    ):
        value = config.get(name, low)
        _must(isinstance(value, int | float) and low <= value <= high, f"{name}: out of range")
    _must(len(config.get("stopSequences", [])) <= 5, "stopSequences: at most 5")
    _must(all(config.get("stopSequences", ["x"])), "stopSequences: empty")
    if "logprobs" in config:
        _must(config.get("responseLogprobs") is True, "logprobs: responseLogprobs is not set")
    if "responseJsonSchema" in config:
        mime = config.get("responseMimeType")
        _must(mime == "application/json", "response_json_schema: wrong responseMimeType")
    if "thinkingConfig" in config:
        _check_thinking(config["thinkingConfig"], model)


def _check_thinking(config: Json, model: str) -> None:
    _known(config, _THINKING, "generation_config.thinking_config")
    thinks = model.startswith(("gemini-2.5", "gemini-3"))
    _must(thinks, "Thinking is not enabled for this model")
    if "thinkingLevel" in config:
        level = config["thinkingLevel"]
        _must(model.startswith("gemini-3"), "Thinking level is not supported for this model.")
        _must("thinkingBudget" not in config, "You can only set one of budget and level.")
        lowest = not (level == "MINIMAL" and "pro" in model)
        _must(level in _LEVELS and lowest, f"Thinking level {level} is not supported")
    if "thinkingBudget" in config:
        budget = config["thinkingBudget"]
        always = "pro" in model or model.startswith("gemini-3")
        _must(not (budget == 0 and always), "Budget 0 is invalid. This model only works thinking.")


def _check_tools(body: Json) -> None:
    declared: set[str] = set()
    for tool in body.get("tools", ()):
        _known(tool, {"functionDeclarations"}, "tools")
        for function in tool["functionDeclarations"]:
            _known(function, {"name", "description", "parametersJsonSchema"}, "tools")
            _must(bool(_NAME.fullmatch(function["name"])), "Invalid function name.")
            schema = function.get("parametersJsonSchema", {"type": "object"})
            _must(schema.get("type") == "object", "parameters_json_schema: must be an object")
            declared.add(function["name"])
    config = body.get("toolConfig", {}).get("functionCallingConfig")
    if config is not None:
        _known(config, {"mode", "allowedFunctionNames"}, "tool_config")
        _must(bool(declared), "Function calling config is set without function_declarations.")
        _must(config["mode"] in {"AUTO", "ANY", "NONE", "VALIDATED"}, "mode: unknown")
        names = config.get("allowedFunctionNames", [])
        _must(not names or config["mode"] in ("ANY", "VALIDATED"), "allowed_function_names: ANY")
        _must(set(names) <= declared, "allowed_function_names: not declared")


def _check_part(part: Json, role: str, where: str) -> None:
    kinds = set(part) & _PART_KINDS
    _must(len(kinds) == 1, f"{where}: required oneof field 'data' must have one initialized field")
    kind = kinds.pop()
    if kind == "text":
        _must(bool(part["text"]), f"{where}: text must not be empty")
        _known(part, {"text", "thought", "thoughtSignature"}, where)
    elif kind == "inlineData":
        _known(part, {"inlineData"}, where)
        _known(part[kind], {"mimeType", "data"}, where)
        _must("/" in part[kind]["mimeType"], f"{where}: mimeType")
        _must(bool(base64.b64decode(part[kind]["data"], validate=True)), f"{where}: data")
    elif kind == "functionCall":
        _must(role == "model", f"{where}: functionCall must be the model's")
        _known(part, {"functionCall", "thoughtSignature"}, where)
        _known(part[kind], {"id", "name", "args"}, where)
        _must(isinstance(part[kind]["args"], dict), f"{where}: args must be a Struct")
    else:
        _must(role == "user", f"{where}: functionResponse must be the user's")
        _known(part[kind], {"id", "name", "response", "parts"}, where)
        _must(isinstance(part[kind]["response"], dict), f"{where}: response must be a Struct")


def _check_calls(contents: list[Json], *, signs: bool) -> None:
    """Calls come after the user, are answered in the next content, all of them, by name."""
    for number, content in enumerate(contents):
        calls = [part for part in content["parts"] if "functionCall" in part]
        if not calls:
            continue
        _must(
            number > 0 and contents[number - 1]["role"] == "user",
            "Please ensure that function call turn comes immediately after a user turn",
        )
        after = contents[number + 1]["parts"] if number + 1 < len(contents) else []
        answered = sorted(
            (part["functionResponse"]["id"], part["functionResponse"]["name"])
            for part in after
            if "functionResponse" in part
        )
        asked = sorted((p["functionCall"]["id"], p["functionCall"]["name"]) for p in calls)
        _must(
            asked == answered,
            "Please ensure that the number of function response parts is equal to the number of "
            "function call parts of the function call turn.",
        )
        if signs:
            _check_signature(calls[0])


def _check_signature(part: Json) -> None:
    found = part.get("thoughtSignature")
    _must(found is not None, "Function call is missing a thought_signature in functionCall parts.")
    good = found in (UNSIGNED, signature_of(part["functionCall"]))
    _must(good, "Corrupted thought signature.")
