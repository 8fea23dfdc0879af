"""A canonical chat written as a request of Gemini's ``generateContent``.

Source: googleapis/python-genai, ``types.py`` and the ``_to_mldev`` converters of ``models.py``.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from plugins.chat import ChatRequest, Object
from plugins.contract import AdapterError, FailureKind, InferenceCall
from plugins.gemini import thinking
from plugins.gemini.contents import Contents
from plugins.gemini.models import Abilities

SUPPORTED_PARAMS = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "stop", "stream", "stream_options"),
        *("temperature", "top_p", "top_k", "n", "seed", "presence_penalty", "frequency_penalty"),
        *("logprobs", "top_logprobs", "response_format", "structured_outputs"),
        *("tools", "tool_choice"),
    }
)
"""What every model takes; ``params_of`` adds what a model's abilities allow. Calls in parallel
cannot be turned off, and nobody is told who the user is."""

ANSWERS_MAX = 8
STOPS_MAX = 5
_SEED_BITS = 2**31 - 1
_encoder = msgspec.json.Encoder()


def params_of(can: Abilities) -> frozenset[str]:
    """The parameters that a model of such abilities honours."""
    if can.thinks == "no":
        return SUPPORTED_PARAMS
    return SUPPORTED_PARAMS | {"reasoning", "reasoning_effort"}


def path_of(model: str) -> str:
    """The model's path: its name, or for a tuned one its whole resource name."""
    return "/" + quote(model if "/" in model else f"models/{model}", safe="/-._~")


def encode(call: InferenceCall, contents: Contents, can: Abilities) -> bytes:
    """The body. Raises AdapterError (BAD_REQUEST) that names what cannot be sent."""
    request = call.chat
    body: Object = {"contents": contents.turns}
    if contents.system:
        body["systemInstruction"] = {"parts": contents.system}
    _put_tools(request, body)
    config = _config(request, can)
    if config:
        body["generationConfig"] = config
    return _encoder.encode(body)


def _config(request: ChatRequest, can: Abilities) -> Object:
    config: Object = {}
    for theirs, ours in (
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("presencePenalty", request.presence_penalty),
        ("frequencyPenalty", request.frequency_penalty),
        ("maxOutputTokens", request.output_tokens_limit()),
    ):
        if isinstance(ours, int | float):
            config[theirs] = ours
    # 0 and -1 mean "no limit" to the servers that the parameter comes from.
    if isinstance(request.top_k, int) and request.top_k > 0:
        config["topK"] = request.top_k
    if isinstance(request.seed, int):
        config["seed"] = request.seed & _SEED_BITS
    if request.answers() > 1:
        if request.answers() > ANSWERS_MAX:
            raise _refused("n", f"n: this provider gives at most {ANSWERS_MAX} answers")
        config["candidateCount"] = request.answers()
    stop = request.stop
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    if len(stops) > STOPS_MAX:
        raise _refused("stop", f"stop: this provider takes at most {STOPS_MAX} sequences")
    if stops:
        config["stopSequences"] = stops
    if request.logprobs is True:
        config["responseLogprobs"] = True
        if isinstance(request.top_logprobs, int) and request.top_logprobs:
            config["logprobs"] = request.top_logprobs
    _put_form(request.response_format, config)
    thought = thinking.config_of(request, can)
    if thought is not None:
        config["thinkingConfig"] = thought
    return config


def _put_form(said: Any, config: Object) -> None:
    """The form that the answer must have."""
    if not isinstance(said, dict) or said.get("type") == "text":
        return
    if said.get("type") not in ("json_object", "json_schema"):
        raise _refused("response_format", "response_format: expected text, JSON or a JSON schema")
    config["responseMimeType"] = "application/json"
    if said["type"] == "json_schema":
        inner = said.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if not isinstance(schema, dict):
            raise _refused("response_format", "response_format.json_schema.schema: missing")
        config["responseJsonSchema"] = schema


def _put_tools(request: ChatRequest, body: Object) -> None:
    tools = request.tools or ()
    functions = [_function(tool, f"tools[{n}]") for n, tool in enumerate(tools)]
    strict = any(tool["function"].get("strict") is True for tool in tools)
    calling = _calling(request.tool_choice, strict=strict)
    if not functions:
        if calling is not None and calling["mode"] == "ANY":
            raise _refused("tool_choice", "tool_choice: there are no tools")
        return
    body["tools"] = [{"functionDeclarations": functions}]
    if calling is not None:
        body["toolConfig"] = {"functionCallingConfig": calling}


def _function(tool: Object, where: str) -> Object:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise _refused("tools", f"{where}: this provider takes functions only")
    name, schema = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise _refused("tools", f"{where}.function.name: missing")
    if schema is not None and not isinstance(schema, dict):
        raise _refused("tools", f"{where}.function.parameters: expected a JSON schema")
    written: Object = {"name": name}
    if isinstance(description := function.get("description"), str) and description:
        written["description"] = description
    if schema:
        written["parametersJsonSchema"] = {"type": "object", **schema}
    return written


def _calling(said: Any, *, strict: bool) -> Object | None:
    """The ``functionCallingConfig``; ``strict`` ones hold calls to their schemas."""
    if isinstance(said, dict):
        function = said.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if said.get("type") == "function" and isinstance(name, str) and name:
            return {"mode": "ANY", "allowedFunctionNames": [name]}
        raise _refused("tool_choice", "tool_choice: expected a function's name")
    if said == "none":
        return {"mode": "NONE"}
    if said == "required":
        return {"mode": "ANY"}
    if isinstance(said, str) and said != "auto":
        raise _refused("tool_choice", "tool_choice: expected none, auto, required or a function")
    if strict:
        return {"mode": "VALIDATED"}
    return {"mode": "AUTO"} if said == "auto" else None


def _refused(param: str, message: str) -> AdapterError:
    return AdapterError(FailureKind.BAD_REQUEST, message, param=param)
