"""Answers put together, as a client does."""

import json
from typing import Any

from plugins.chat import Choice, ChoiceDelta
from plugins.contract import Adapter, Chunk, Completion, InferenceCall, Started, Usage, UsageReport

Json = dict[str, Any]


def said(choice: Choice) -> Json:
    """A whole answer as plain data."""
    message = choice.message
    return {
        "content": message.content or "",
        "thoughts": message.reasoning_content or "",
        "details": message.reasoning_details or [],
        "calls": message.tool_calls or [],
        "tokens": choice.logprobs["content"] if choice.logprobs else [],
        "finish": choice.finish_reason,
    }


def joined(deltas: list[ChoiceDelta]) -> dict[int, Json]:
    """The same of a stream's deltas, by choice; lists grow by appending, as OpenAI's SDKs do."""
    found: dict[int, Json] = {}
    for part in deltas:
        empty = {"content": "", "thoughts": "", "details": [], "calls": [], "tokens": []}
        choice = found.setdefault(part.index, {**empty, "finish": None})
        delta = part.delta
        choice["content"] += delta.content or ""
        choice["thoughts"] += delta.reasoning_content or ""
        choice["details"] += delta.reasoning_details or []
        for call in delta.tool_calls or []:
            assert call["index"] == len(choice["calls"]), "calls come whole, one after the other"
            choice["calls"].append({key: call[key] for key in call if key != "index"})
        choice["tokens"] += part.logprobs["content"] if part.logprobs else []
        assert choice["finish"] is None, "nothing comes after the end"
        choice["finish"] = part.finish_reason
    return found


async def answers(adapter: Adapter, call: InferenceCall) -> tuple[dict[int, Json], Usage, str]:
    """What a call is answered, by choice, what it used, and the provider's id of it."""
    deltas: list[ChoiceDelta] = []
    found: dict[int, Json] = {}
    usage, upstream_id = Usage(), ""
    async for event in adapter.infer(call):
        if isinstance(event, Started):
            upstream_id = event.upstream_id
        elif isinstance(event, Chunk):
            deltas += event.choices
        elif isinstance(event, Completion):
            found = {choice.index: said(choice) for choice in event.choices}
        elif isinstance(event, UsageReport):
            usage = event.usage
    return found or joined(deltas), usage, upstream_id


async def answer(adapter: Adapter, call: InferenceCall) -> tuple[Json, Usage, str]:
    """The first choice of it."""
    found, usage, upstream_id = await answers(adapter, call)
    return found[0], usage, upstream_id


def as_message(found: Json, *, extra: bool = True, details: bool = True) -> Json:
    """The answer as the assistant's message of the next request, with what a client keeps."""
    message: Json = {"role": "assistant", "content": found["content"] or None}
    if found["calls"]:
        kept = {"id", "type", "function"} | ({"extra_content"} if extra else set())
        message["tool_calls"] = [
            {key: call[key] for key in call if key in kept} for call in found["calls"]
        ]
    if found["details"] and details:
        message["reasoning_details"] = found["details"]
    return message


def arguments(call: Json) -> Any:
    """A call's arguments, read."""
    return json.loads(call["function"]["arguments"])
