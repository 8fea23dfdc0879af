"""Amazon Bedrock's Converse and ConverseStream, played: strict about requests and signatures, exact
about usage, and faulty on demand.

Source: boto/botocore (``service-2.json``, ``eventstream.py``). A user message with ``play:NAME`` in
it asks for a scene; ``call NAME`` asks for tool calls.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from struct import pack
from typing import Any
from urllib.parse import unquote
from zlib import crc32

from tests.upstreams.bedrock_rules import KEY_ID, TOKEN, complaint, is_signed, signature_of
from tests.upstreams.serving import Asked, Reply, Serving

Json = dict[str, Any]
REGION = "eu-central-2"
EVENT_STREAM = "application/vnd.amazon.eventstream"

REFUSALS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "ValidationException", "temperature must be 0 to 1"),
    "too_long": (400, "ValidationException", "Input is too long for requested model."),
    "claude_too_long": (
        400,
        "ValidationException",
        "The model returned the following errors: prompt is too long: 208310 tokens > 200000",
    ),
    "bad_model": (400, "ValidationException", "The provided model identifier is invalid."),
    "on_demand": (
        400,
        "ValidationException",
        "Invocation of model ID x with on-demand throughput isn’t supported. Retry your request "
        "with the ID or ARN of an inference profile that contains this model.",
    ),
    "forbidden": (403, "AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized"),
    "no_access": (
        403,
        "AccessDeniedException",
        "You don't have access to the model with the specified model ID.",
    ),
    "bad_signature": (
        403,
        "InvalidSignatureException",
        f"The Canonical String should have been 'POST\nx-amz-security-token:{TOKEN}\n{KEY_ID}'",
    ),
    "expired": (403, "ExpiredTokenException", "The security token included is expired"),
    "not_found": (404, "ResourceNotFoundException", "Could not find the model"),
    "timeout": (408, "ModelTimeoutException", "Model has timed out in processing the request"),
    "model_error": (424, "ModelErrorException", "The model failed"),
    "rate_limited": (429, "ThrottlingException", "Too many tokens, please wait"),
    "not_ready": (429, "ModelNotReadyException", "Model is not ready for inference."),
    "quota": (400, "ServiceQuotaExceededException", "Your account's quota is used up"),
    "server_error": (500, "InternalServerException", "Something went wrong"),
    "unavailable": (503, "ServiceUnavailableException", "Bedrock is unable to process"),
}
STOPS = {
    "length": "max_tokens",
    "stopped": "stop_sequence",
    "window": "model_context_window_exceeded",
    "guardrail": "guardrail_intervened",
    "filtered": "content_filtered",
    "malformed": "malformed_model_output",
}
LATER = {
    "throttled_later": ("throttlingException", "Too many requests"),
    "model_error_later": ("modelStreamErrorException", "The model failed"),
    "unavailable_later": ("serviceUnavailableException", "unavailable"),
    "server_error_later": ("internalServerException", "went wrong"),
    "too_long_later": ("validationException", "Input is too long for requested model."),
}


@dataclass(frozen=True)
class Billed:
    """What one request would cost, in Amazon's counts."""

    model: str
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int


@dataclass
class PlayedBedrock:
    """Use ``async with``; ``books`` are the bills, ``refused`` what was wrong with requests."""

    slice_bytes: int = 0
    books: list[Billed] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    bodies: list[Json] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    _cached: set[str] = field(default_factory=set)

    async def __aenter__(self) -> "PlayedBedrock":
        self.serving = Serving(self.play)
        await self.serving.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.serving.__aexit__(*error)

    @property
    def base_url(self) -> str:
        return self.serving.origin

    async def play(self, asked: Asked, reply: Reply) -> None:
        headers = [("x-amzn-RequestId", f"{len(self.serving.asked):08d}-0000")]
        found = re.fullmatch(r"/model/([^/]+)/(converse|converse-stream)", asked.target)
        if found is None:
            await refuse(reply, 404, "UnknownOperationException", "", headers)
            return
        if not is_signed(asked.headers, asked.target, asked.body):
            words = "The security token included in the request is invalid."
            await refuse(reply, 403, "UnrecognizedClientException", words, headers)
            return
        model, body = unquote(found[1]), asked.json()
        if (why := complaint(model, body)) is not None:
            self.refused.append(why)
            await refuse(reply, 400, "ValidationException", why, headers)
            return
        self.bodies.append(body)
        self.models.append(model)
        scene = scene_of(body)
        if scene in REFUSALS:
            status, name, words = REFUSALS[scene]
            await refuse(reply, status, name, words, headers)
        elif scene in _BROKEN:
            await _BROKEN[scene](reply)
        else:
            answer = self._answer(model, body, scene)
            await self._send(reply, answer, scene, found[2] == "converse-stream", headers)

    def _answer(self, model: str, body: Json, scene: str) -> Json:
        content = content_of(body, scene)
        size = words_in([body.get(name) for name in ("system", "messages", "toolConfig")])
        said = json.dumps(body["messages"])
        half = size // 2 if '"cachePoint"' in json.dumps(body) else 0
        known = said in self._cached
        if half:
            self._cached.add(said)
        bill = Billed(
            model=model,
            input_tokens=size - half,
            cache_read_tokens=half if known else 0,
            cache_write_tokens=0 if known else half,
            output_tokens=words_in(content),
        )
        self.books.append(bill)
        return answer_of(content, usage_of(bill), stop_of(content, scene))

    async def _send(
        self, reply: Reply, answer: Json, scene: str, stream: bool, headers: list[tuple[str, str]]
    ) -> None:
        if not stream:
            await reply.answer(200, answer, headers)
            return
        frames = frames_of(answer)
        if scene in LATER:
            name, words = LATER[scene]
            frames = [*frames[:3], frame("exception", name, {"message": words})]
        elif scene == "error_frame":
            head = {":message-type": "error", ":error-code": "x", ":error-message": "gone"}
            frames = [*frames[:3], encode_frame(head, b"")]
        elif scene == "bad_checksum":
            frames[4] = frames[4][:-1] + bytes([frames[4][-1] ^ 1])
        elif scene == "huge_frame":
            frames[4] = frame("event", "contentBlockDelta", {"p": "x" * 2_000_000})
        elif scene == "no_metadata":
            frames = frames[:-1]
        elif scene in ("cut", "reset", "hang", "ends_early"):
            frames = [*frames[:4], frames[4][:20]]
        await reply.begin(kind=EVENT_STREAM, headers=headers)
        data = b"".join(frames)
        size = self.slice_bytes or len(data)
        for start in range(0, len(data), size):
            await reply.send(data[start : start + size])
        if scene == "cut":
            await reply.close()
        elif scene == "reset":
            await reply.reset()
        elif scene == "hang":
            await reply.hang()
        await reply.end()


def scene_of(body: Json) -> str:
    """The scene that the last user message asks for."""
    found = re.findall(r"play:(\w+)", json.dumps(body["messages"][-1]))
    return found[-1] if found else "normal"


def content_of(body: Json, scene: str) -> list[Json]:
    """The blocks of the answer, always the same for the same request."""
    said = texts_in(body["messages"][-1]["content"])
    fields = body.get("additionalModelRequestFields", {})
    content: list[Json] = []
    if fields.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        thought = "Let me think about " + (said[:40] or "it")
        text = {"text": thought, "signature": signature_of(thought)}
        content.append({"reasoningContent": {"reasoningText": text}})
        if scene == "sealed":
            data = base64.b64encode(thought.encode()).decode()
            content.append({"reasoningContent": {"redactedContent": data}})
    content.append({"text": f"You said: {said or 'nothing'} – ünï {len(said)}"})
    if "textFormat" in body.get("outputConfig", {}):
        content[-1]["text"] = json.dumps({"said": said})
    tools = body.get("toolConfig", {}).get("tools", [])
    names = [tool["toolSpec"]["name"] for tool in tools if "toolSpec" in tool]
    calls = [name for name in re.findall(r"call (\w+)", said) if name in names]
    if "tool_choice" in fields:
        calls = calls[:1]
    for number, name in enumerate(calls):
        arguments = {} if name == "noop" else {"city": f"Zürich {number}", "deep": [1, {"x": None}]}
        use_id = "tooluse_" + hashlib.sha256(f"{said}{number}".encode()).hexdigest()[:22]
        content.append({"toolUse": {"toolUseId": use_id, "name": name, "input": arguments}})
    return content


def stop_of(content: list[Json], scene: str) -> str:
    """Why the answer ends."""
    if scene in STOPS:
        return STOPS[scene]
    return "tool_use" if any("toolUse" in part for part in content) else "end_turn"


def usage_of(bill: Billed) -> Json:
    """A bill in the words of the API."""
    return {
        "inputTokens": bill.input_tokens,
        "outputTokens": bill.output_tokens,
        "totalTokens": bill.input_tokens
        + bill.cache_read_tokens
        + bill.cache_write_tokens
        + bill.output_tokens,
        "cacheReadInputTokens": bill.cache_read_tokens,
        "cacheWriteInputTokens": bill.cache_write_tokens,
        "serverToolUsage": {},
    }


def answer_of(content: list[Json], usage: Json, stop: str) -> Json:
    """A whole answer."""
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop,
        "usage": usage,
        "metrics": {"latencyMs": 12},
    }


def frames_of(answer: Json) -> list[bytes]:
    """The same answer as frames: text and JSON in pieces of five characters."""
    frames = [frame("event", "messageStart", {"role": "assistant", "p": "abcd"})]
    for index, part in enumerate(answer["output"]["message"]["content"]):
        start, deltas = _pieces_of(part)
        if start is not None:
            told = {"start": start, "contentBlockIndex": index}
            frames.append(frame("event", "contentBlockStart", told))
        for delta in deltas:
            told = {"delta": delta, "contentBlockIndex": index, "p": "abcdefgh"}
            frames.append(frame("event", "contentBlockDelta", told))
        frames.append(frame("event", "contentBlockStop", {"contentBlockIndex": index}))
    frames.append(frame("event", "messageStop", {"stopReason": answer["stopReason"]}))
    told = {"usage": answer["usage"], "metrics": answer["metrics"]}
    return [*frames, frame("event", "metadata", told)]


def _pieces_of(part: Json) -> tuple[Json | None, list[Json]]:
    if "text" in part:
        return None, [{"text": piece} for piece in pieces(part["text"])]
    if "toolUse" in part:
        use = part["toolUse"]
        text = json.dumps(use["input"]) if use["input"] else ""
        start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
        return start, [{"toolUse": {"input": piece}} for piece in pieces(text)]
    thought = part["reasoningContent"]
    if "redactedContent" in thought:
        return None, [{"reasoningContent": {"redactedContent": thought["redactedContent"]}}]
    said = thought["reasoningText"]
    deltas: list[Json] = [{"text": piece} for piece in pieces(said["text"])]
    deltas.append({"signature": said["signature"]})
    return None, [{"reasoningContent": delta} for delta in deltas]


def pieces(text: str) -> list[str]:
    """The text in pieces of five characters."""
    return [text[start : start + 5] for start in range(0, len(text), 5)]


def frame(kind: str, name: str, payload: Json) -> bytes:
    """A frame with an event or an exception in it."""
    word = "event" if kind == "event" else "exception"
    headers = {
        f":{word}-type": name,
        ":content-type": "application/json",
        ":message-type": kind,
    }
    return encode_frame(headers, json.dumps(payload, ensure_ascii=False).encode())


def encode_frame(headers: dict[str, str], payload: bytes) -> bytes:
    """The frame's bytes; every header is a string."""
    head = b"".join(
        pack("!B", len(name)) + name.encode() + b"\x07" + pack("!H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = pack("!II", 16 + len(head) + len(payload), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head + payload
    return body + pack("!I", crc32(body))


def texts_in(content: list[Json]) -> str:
    """All text of a message's content, results of tools included."""
    found = []
    for part in content:
        if "text" in part:
            found.append(part["text"])
        elif "toolResult" in part:
            found.append(texts_in(part["toolResult"]["content"]))
    return " ".join(found)


def words_in(value: Any) -> int:
    """A count that stands for tokens."""
    return len(re.findall(r"\w+", json.dumps(value)))


async def refuse(
    reply: Reply, status: int, name: str, message: str, headers: list[tuple[str, str]]
) -> None:
    """An error with its status; its name carries a URL behind a colon, as AWS's do."""
    more = [*headers, ("x-amzn-ErrorType", f"{name}:http://internal.amazon.com/coral/")]
    if status in (429, 503):
        more.append(("retry-after", "7"))
    await reply.answer(status, {"message": message}, more)


async def _garbage(reply: Reply) -> None:
    await reply.answer(200, b'{"output": {"mess', kind="application/json")


async def _html(reply: Reply) -> None:
    await reply.answer(200, "<html>Bad gateway</html>", kind="text/html")


async def _garbage_frames(reply: Reply) -> None:
    await reply.answer(200, b"x" * 100, kind=EVENT_STREAM)


async def _gzip(reply: Reply) -> None:
    await reply.answer(200, b"\x1f\x8b\x08", [("content-encoding", "gzip")], EVENT_STREAM)


async def _slow_headers(reply: Reply) -> None:
    await reply.hang()


async def _redirect(reply: Reply) -> None:
    await reply.answer(307, b"", [("location", "http://127.0.0.1:1/elsewhere")])


async def _reset_at_once(reply: Reply) -> None:
    await reply.reset()


_BROKEN = {
    "garbage": _garbage,
    "html": _html,
    "garbage_frames": _garbage_frames,
    "gzip": _gzip,
    "slow_headers": _slow_headers,
    "redirect": _redirect,
    "reset_at_once": _reset_at_once,
}
