"""Anthropic's Messages API, played: strict about requests, exact about usage, and faulty on demand.

Source: anthropics/anthropic-sdk-python (types, error types, event names) and the texts of real
refusals in public issues. A user message with ``play:NAME`` in it asks for a scene; ``call NAME``
asks for tool calls. Thoughts are signed, and a changed one is refused, as by the real API.
"""

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.upstreams.anthropic_rules import complaint, signature_of
from tests.upstreams.serving import Asked, Reply, Serving

KEY = "sk-ant-api03-key-of-the-appliance"
Json = dict[str, Any]

REFUSALS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "invalid_request_error", "temperature: range: 0..1"),
    "too_long": (
        400,
        "invalid_request_error",
        "prompt is too long: 208310 tokens > 200000",
    ),
    "over_context": (
        400,
        "invalid_request_error",
        "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease "
        "input length or `max_tokens` and try again",
    ),
    "no_credit": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing",
    ),
    "billing": (402, "billing_error", "Payment required"),
    "forbidden": (403, "permission_error", f"Your API key {KEY} may not use this resource"),
    "not_found": (404, "not_found_error", "model: claude-nothing"),
    "too_large": (413, "request_too_large", "Request exceeds the maximum size"),
    "rate_limited": (429, "rate_limit_error", "Number of request tokens exceeds the rate limit"),
    "server_error": (500, "api_error", "Internal server error"),
    "timeout": (504, "timeout_error", "Request timed out"),
    "unavailable": (529, "overloaded_error", "Overloaded"),
}
STOPS = {
    "length": "max_tokens",
    "stopped": "stop_sequence",
    "refusal": "refusal",
    "paused": "pause_turn",
    "window": "model_context_window_exceeded",
}


@dataclass(frozen=True)
class Billed:
    """What one request would cost, in Anthropic's counts."""

    model: str
    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


@dataclass
class PlayedAnthropic:
    """Use ``async with``; ``books`` are the bills, ``refused`` what was wrong with requests."""

    slice_bytes: int = 0
    books: list[Billed] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    bodies: list[Json] = field(default_factory=list)
    _cached: set[str] = field(default_factory=set)

    async def __aenter__(self) -> "PlayedAnthropic":
        self.serving = Serving(self.play)
        await self.serving.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.serving.__aexit__(*error)

    @property
    def base_url(self) -> str:
        return self.serving.origin

    async def play(self, asked: Asked, reply: Reply) -> None:
        number = len(self.serving.asked)
        request_id = f"req_{number:06d}"
        if (fault := self._fault(asked)) is not None:
            status, kind, message = fault
            await refuse(reply, status, kind, message, request_id)
            return
        body = asked.json()
        self.bodies.append(body)
        scene = scene_of(body)
        if scene in REFUSALS:
            await refuse(reply, *REFUSALS[scene], request_id)
        elif scene in _BROKEN:
            await _BROKEN[scene](reply)
        else:
            answer = self._answer(body, scene, f"msg_{number:06d}")
            await self._send(reply, answer, scene, bool(body.get("stream")))

    def _fault(self, asked: Asked) -> tuple[int, str, str] | None:
        if (asked.method, asked.target) != ("POST", "/v1/messages"):
            return 404, "not_found_error", "Not found"
        if asked.headers.get("x-api-key") != KEY:
            return 401, "authentication_error", "invalid x-api-key"
        if asked.headers.get("anthropic-version") != "2023-06-01":
            return 400, "invalid_request_error", "anthropic-version: header is required"
        if asked.headers.get("content-type") != "application/json":
            return 400, "invalid_request_error", "content-type: must be application/json"
        why = complaint(asked.json())
        if why is not None:
            self.refused.append(why)
            return 400, "invalid_request_error", why
        return None

    def _answer(self, body: Json, scene: str, message_id: str) -> Json:
        content = content_of(body, scene)
        size = words_in([body.get(name) for name in ("system", "messages", "tools")])
        cached = '"cache_control"' in json.dumps(body)
        known = json.dumps(body["messages"]) in self._cached
        if cached:
            self._cached.add(json.dumps(body["messages"]))
        half = size // 2 if cached else 0
        usage = {
            "input_tokens": size - half,
            "cache_creation_input_tokens": 0 if known else half,
            "cache_read_input_tokens": half if known else 0,
            "output_tokens": words_in(content),
        }
        self.books.append(Billed(model=body["model"], **usage))
        thoughts = [block for block in content if block["type"] == "thinking"]
        if thoughts:
            usage["output_tokens_details"] = {"thinking_tokens": words_in(thoughts)}  # type: ignore[assignment]
        return message_of(content, usage, stop_of(content, scene), message_id)

    async def _send(self, reply: Reply, message: Json, scene: str, stream: bool) -> None:
        if not stream:
            if scene == "error_in_200":
                message = error_of("api_error", "Internal server error")
            await reply.answer(200, message, [("request-id", "req_ok")])
            return
        events = events_of(message)
        if scene in _LATER:
            cut = next(n for n, e in enumerate(events) if e["type"] == "content_block_delta") + 2
            events = [*events[:cut], error_of(*_LATER[scene])]
        if scene == "error_first":
            events = [error_of("overloaded_error", "Overloaded")]
        await reply.begin(headers=[("request-id", "req_ok")])
        data = frames_of(events)
        if scene in ("cut", "reset", "hang", "ends_early"):
            data = data[: data.index(b"content_block_stop") - 20]
        size = self.slice_bytes or len(data)
        for start in range(0, len(data), size):
            await reply.send(data[start : start + size])
        if scene == "cut":
            await reply.close()
        elif scene == "reset":
            await reply.reset()
        elif scene == "hang":
            await reply.hang()
        else:
            await reply.end()


_LATER = {
    "error_later": ("api_error", "Internal server error"),
    "overloaded_later": ("overloaded_error", "Overloaded"),
    "rate_limited_later": ("rate_limit_error", "too fast"),
}


def scene_of(body: Json) -> str:
    """The scene that the last user message asks for."""
    found = re.findall(r"play:(\w+)", json.dumps(body["messages"][-1]))
    return found[-1] if found else "normal"


def content_of(body: Json, scene: str) -> list[Json]:
    """The blocks of the answer, always the same for the same request."""
    said = texts_in(body["messages"][-1]["content"])
    content: list[Json] = []
    if body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        thought = "Let me think about " + (said[:40] or "it")
        signature = signature_of(thought)
        content.append({"type": "thinking", "thinking": thought, "signature": signature})
        if scene == "sealed":
            data = hashlib.sha256(thought.encode()).hexdigest()
            content.append({"type": "redacted_thinking", "data": data})
    names = [tool["name"] for tool in body.get("tools", ())]
    calls = [name for name in re.findall(r"call (\w+)", said) if name in names]
    if body.get("tool_choice", {}).get("type") == "none":
        calls = []
    if body.get("tool_choice", {}).get("disable_parallel_tool_use"):
        calls = calls[:1]
    content.append({"type": "text", "text": f"You said: {said or 'nothing'} – ünï {len(said)}"})
    if "output_config" in body and "format" in body["output_config"]:
        content[-1]["text"] = json.dumps({"said": said})
    for number, name in enumerate(calls):
        arguments = {} if name == "noop" else {"city": f"Zürich {number}", "deep": [1, {"x": None}]}
        call_id = "toolu_" + hashlib.sha256(f"{said}{number}".encode()).hexdigest()[:24]
        content.append({"type": "tool_use", "id": call_id, "name": name, "input": arguments})
    if scene == "strange":
        content.append({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web", "input": {}})
    return content


def stop_of(content: list[Json], scene: str) -> str:
    """Why the answer ends."""
    if scene in STOPS:
        return STOPS[scene]
    return "tool_use" if any(block["type"] == "tool_use" for block in content) else "end_turn"


def message_of(content: list[Json], usage: Json, stop: str, message_id: str) -> Json:
    """A whole answer."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": "claude-played",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": (
            {"type": "refusal", "category": "cyber", "explanation": "That could do harm."}
            if stop == "refusal"
            else None
        ),
        "usage": {**usage, "service_tier": "standard", "server_tool_use": None},
    }


def events_of(message: Json) -> list[Json]:
    """The same answer as events: text and JSON in pieces of five characters, with pings between."""
    usage = message["usage"]
    first = {**message, "content": [], "stop_reason": None, "stop_details": None}
    first["usage"] = {**usage, "output_tokens": 1}
    events: list[Json] = [{"type": "message_start", "message": first}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        events += _block_events(index, block)
        events.append({"type": "ping"})
    delta = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    last = {"output_tokens": usage["output_tokens"]}
    if "output_tokens_details" in usage:
        last["output_tokens_details"] = usage["output_tokens_details"]
    events.append({"type": "message_delta", "delta": delta, "usage": last})
    events.append({"type": "brand_new_event", "delta": "of another shape", "index": "seven"})
    return [*events, {"type": "message_stop"}]


def _block_events(index: int, block: Json) -> list[Json]:
    kind = block["type"]
    start = dict(block)
    deltas: list[Json] = []
    if kind == "text":
        start["text"] = ""
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
    elif kind == "thinking":
        start |= {"thinking": "", "signature": ""}
        deltas = [
            {"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])
        ]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind == "tool_use":
        start["input"] = {}
        text = json.dumps(block["input"]) if block["input"] else ""
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(text)]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def pieces(text: str) -> list[str]:
    """The text in pieces of five characters."""
    return [text[start : start + 5] for start in range(0, len(text), 5)]


def frames_of(events: list[Json]) -> bytes:
    """The events as they go over the wire."""
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for event in events
    )


def error_of(kind: str, message: str) -> Json:
    """An error's body."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_x"}


async def refuse(reply: Reply, status: int, kind: str, message: str, request_id: str) -> None:
    """An error with its status."""
    headers = [("request-id", request_id)]
    if status in (429, 529):
        headers.append(("retry-after", "7"))
    await reply.answer(status, error_of(kind, message), headers)


def texts_in(content: Any) -> str:
    """All text of a message's content, results of tools included."""
    if isinstance(content, str):
        return content
    return " ".join(
        block["text"] if block["type"] == "text" else texts_in(block["content"])
        for block in content
        if block["type"] == "text" or (block["type"] == "tool_result" and "content" in block)
    )


def words_in(value: Any) -> int:
    """A count that stands for tokens."""
    return len(re.findall(r"\w+", json.dumps(value)))


async def _garbage(reply: Reply) -> None:
    await reply.answer(200, b'{"type": "message", "cont', kind="application/json")


async def _html(reply: Reply) -> None:
    await reply.answer(200, "<html>Bad gateway</html>", kind="text/html")


async def _gzip(reply: Reply) -> None:
    await reply.answer(200, b"\x1f\x8b\x08", [("content-encoding", "gzip")])


async def _huge_line(reply: Reply) -> None:
    await reply.begin()
    for _ in range(80):
        await reply.send(b"data: " + b"x" * 32_768)
    await reply.end()


async def _slow_headers(reply: Reply) -> None:
    await asyncio.Event().wait()


async def _redirect(reply: Reply) -> None:
    await reply.answer(307, b"", [("location", "http://127.0.0.1:1/elsewhere")])


async def _reset_at_once(reply: Reply) -> None:
    await reply.reset()


_BROKEN = {
    "garbage": _garbage,
    "html": _html,
    "gzip": _gzip,
    "huge_line": _huge_line,
    "slow_headers": _slow_headers,
    "redirect": _redirect,
    "reset_at_once": _reset_at_once,
}
