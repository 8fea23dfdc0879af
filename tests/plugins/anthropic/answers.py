"""Answers put together, as a client does."""

import json
from typing import Any

from plugins.chat import Choice, ChoiceDelta
from plugins.contract import Adapter, Chunk, Completion, InferenceCall, Started, Usage, UsageReport

Json = dict[str, Any]


def said(choice: Choice) -> Json:
    """A whole answer as plain data; arguments are read, since their spelling may differ."""
    message = choice.message
    return {
        "content": message.content or "",
        "refusal": message.refusal or None,
        "thoughts": message.reasoning_content or "",
        "details": message.reasoning_details or [],
        "calls": [_call(call) for call in message.tool_calls or []],
        "finish": choice.finish_reason,
    }


def joined(deltas: list[ChoiceDelta]) -> Json:
    """The same of a stream's deltas; lists grow by appending, as OpenAI's SDKs do."""
    calls: dict[int, Json] = {}
    found: Json = {"content": "", "refusal": None, "thoughts": "", "details": [], "finish": None}
    for part in deltas:
        delta = part.delta
        found["content"] += delta.content or ""
        found["thoughts"] += delta.reasoning_content or ""
        found["details"] += delta.reasoning_details or []
        found["refusal"] = delta.refusal or found["refusal"]
        found["finish"] = part.finish_reason or found["finish"]
        for piece in delta.tool_calls or []:
            call = calls.setdefault(piece["index"], {"function": {"name": "", "arguments": ""}})
            call |= {key: piece[key] for key in ("id", "type") if key in piece}
            for key, value in piece["function"].items():
                call["function"][key] += value
    return {**found, "calls": [_call(calls[index]) for index in sorted(calls)]}


def _call(call: Json) -> Json:
    function = call["function"]
    return {
        "id": call["id"],
        "name": function["name"],
        "arguments": json.loads(function["arguments"]),
    }


async def answer(adapter: Adapter, call: InferenceCall) -> tuple[Json, Usage, str]:
    """What a call is answered, what it used, and the provider's id of it."""
    deltas: list[ChoiceDelta] = []
    found: Json = {}
    usage, upstream_id = Usage(), ""
    async for event in adapter.infer(call):
        if isinstance(event, Started):
            upstream_id = event.upstream_id
        elif isinstance(event, Chunk):
            deltas += event.choices
        elif isinstance(event, Completion):
            found = said(event.choices[0])
        elif isinstance(event, UsageReport):
            usage = event.usage
    return found or joined(deltas), usage, upstream_id


def as_message(found: Json) -> Json:
    """The answer as the assistant's message of the next request."""
    message: Json = {"role": "assistant", "content": found["content"] or None}
    if found["calls"]:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
            }
            for call in found["calls"]
        ]
    if found["details"]:
        message["reasoning_details"] = found["details"]
    return message
