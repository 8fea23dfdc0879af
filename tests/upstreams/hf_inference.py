"""HF Inference, played: strict about paths and payloads, with the headers that its servers send.

Source: huggingface/huggingface_hub ``inference/_providers/hf_inference.py`` and
``inference/_generated/types``; huggingface/api-inference-community ``routes.py`` (headers, errors,
warnings); text-embeddings-inference (milliseconds, ``error_type``). A text with ``play:NAME`` in it
asks for a scene.
"""

import base64
import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.upstreams.serving import Asked, Reply, Serving

KEY = "hf_keyOfTheAppliance"
MODEL = "acme/model-1.5"
PNG = b"\x89PNG\r\n\x1a\n picture"
FLAC = b"fLaC sound"
Json = dict[str, Any]

LOADING = {"error": f"Model {MODEL} is currently loading", "estimated_time": 20.5}
REFUSALS: dict[str, tuple[int, Any]] = {
    "loading": (503, LOADING),
    "loading_long": (503, {**LOADING, "estimated_time": 340.1}),
    "loading_odd": (503, {"error": "Model x is currently loading", "estimated_time": -1}),
    "busy": (503, {"error": "Model too busy, unable to get response in less than 120 second(s)"}),
    "listed": (
        400,
        {"error": ["Input should be > 0: `width` in `parameters`", "Extra inputs: `x`"]},
    ),
    "warned": (400, {"error": "unknown scheduler", "warnings": ["There was an error: x"]}),
    "too_long": (
        413,
        {
            "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
            "error_type": "Validation",
        },
    ),
    "unknown": (400, {"error": f"Model {MODEL} not supported by provider hf-inference"}),
    "no_credit": (
        402,
        {"error": "You have exceeded your monthly included credits for Inference Providers."},
    ),
    "forbidden": (403, {"error": f"The key {KEY} has no permission to call Inference Providers"}),
    "not_found": (404, {"error": "Model not found"}),
    "rate_limited": (429, {"error": "Rate limit reached"}),
    "server_error": (500, {"error": "unknown error"}),
    "timeout": (504, "<html>Gateway Time-out</html>"),
}
CHUNKS = [
    {"text": " Hello there,", "timestamp": [0.0, 1.25]},
    {"text": " world.", "timestamp": [1.25, 2.5]},
]
WORDS = [
    {"text": " Hello", "timestamp": [0.0, 0.5]},
    {"text": " world", "timestamp": [0.5, 0.9]},
]
_IMAGE = {
    *("width", "height", "seed", "scheduler", "target_size", "prompt"),
    *("guidance_scale", "negative_prompt", "num_inference_steps"),
}
_CHAT = {"model", "messages", "max_tokens", "stream", "stream_options", "response_format", "seed"}


@dataclass
class PlayedHfInference:
    """Use ``async with``; ``sent`` are the payloads that were taken, ``refused`` what was wrong
    with the others, ``seconds`` the bills."""

    sent: list[Any] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    seconds: list[str] = field(default_factory=list)
    in_ms: bool = False
    unpriced: bool = False

    async def __aenter__(self) -> "PlayedHfInference":
        self.serving = Serving(self.play)
        await self.serving.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.serving.__aexit__(*error)

    @property
    def base_url(self) -> str:
        return self.serving.origin + "/hf-inference"

    async def play(self, asked: Asked, reply: Reply) -> None:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            await reply.answer(401, {"error": "Invalid credentials in Authorization header"})
            return
        path = asked.path.removeprefix(f"/hf-inference/models/{MODEL}")
        kind = asked.headers.get("content-type", "")
        payload: Any = asked.body if kind.startswith("audio/") else asked.json()
        scene = scene_of(payload)
        if scene in REFUSALS:
            status, body = REFUSALS[scene]
            await reply.answer(status, body)
        elif path == "/v1/chat/completions":
            await self._chat(payload, reply)
        elif path == "/pipeline/feature-extraction":
            await self._embed(payload, scene, reply)
        elif path == "" and isinstance(payload, bytes):
            await self._listen(payload, {}, scene, reply)
        elif path == "":
            await self._task(payload, scene, asked.headers["accept"], reply)
        else:
            await self._complain(f"path {asked.path}", reply)

    async def _task(self, payload: Json, scene: str, accept: str, reply: Reply) -> None:
        parameters = payload.get("parameters", {})
        if set(payload) - {"inputs", "parameters"}:
            await self._complain(f"payload {sorted(payload)}", reply)
        elif accept == "application/json":
            data = base64.b64decode(payload["inputs"], validate=True)
            if set(parameters) - {"return_timestamps", "generation_parameters"}:
                await self._complain(f"parameters {sorted(parameters)}", reply)
            else:
                await self._listen(data, parameters, scene, reply, payload)
        elif accept.startswith("audio/"):
            await self._good(payload, scene, reply, FLAC, "audio/flac")
        elif set(parameters) - _IMAGE:
            await self._complain(f"parameters {sorted(parameters)}", reply)
        else:
            await self._good(payload, scene, reply, PNG, "image/png")

    async def _listen(
        self, data: bytes, parameters: Json, scene: str, reply: Reply, payload: Any = None
    ) -> None:
        answer: Json = {"text": " Hello there, world."}
        if wanted := parameters.get("return_timestamps"):
            answer["chunks"] = WORDS if wanted == "word" else CHUNKS
        if b"warn" in data:
            answer["warnings"] = ["the sound is long"]
        await self._good(payload or data, scene, reply, answer)

    async def _embed(self, payload: Json, scene: str, reply: Reply) -> None:
        if set(payload) - {"inputs", "truncate", "prompt_name", "normalize"}:
            await self._complain(f"payload {sorted(payload)}", reply)
            return
        vectors: Any = [[len(text) / 8, 0.5, -1.0] for text in payload["inputs"]]
        if scene == "alone":
            vectors = vectors[0]
        elif scene == "per_token":
            vectors = [[each, each] for each in vectors]
        elif scene == "one_less":
            vectors = vectors[1:]
        elif scene == "crooked":
            vectors[0] = vectors[0][:2]
        await self._good(payload, scene, reply, vectors)

    async def _good(
        self, payload: Any, scene: str, reply: Reply, answer: Any, kind: str = "application/json"
    ) -> None:
        """An answer with what it costs."""
        if scene == "error_in_200":
            answer, kind = {"error": ["unknown error"]}, "application/json"
        elif scene == "garbage":
            answer, kind = b"\x00\x01", "application/octet-stream"
        elif scene == "html":
            answer, kind = "<html>", "text/html"
        elif scene == "hang":
            await reply.begin(kind=kind)
            await reply.hang()
        elif scene == "cut":
            await reply.begin(kind=kind)
            await reply.send(b"[[0.")
            await reply.close()
        elif scene == "reset":
            await reply.reset()
        self.sent.append(payload)
        await reply.answer(200, answer, self._headers(), kind)

    def _headers(self) -> list[tuple[str, str]]:
        headers = [("x-compute-type", "cpu"), ("x-request-id", f"req-{len(self.sent)}")]
        if self.unpriced:
            return headers
        milliseconds = 137 + len(self.sent)
        self.seconds.append(f"0.{milliseconds}")
        if self.in_ms:
            headers += [("x-compute-time", str(milliseconds)), ("x-compute-tokens", "7")]
            return [*headers, ("x-total-time", str(milliseconds + 1))]
        return [*headers, ("x-compute-time", f"0.{milliseconds}")]

    async def _chat(self, payload: Json, reply: Reply) -> None:
        form = payload.get("response_format")
        if payload["model"] != MODEL or set(payload) - _CHAT:
            await self._complain(f"payload {sorted(payload)}", reply)
            return
        if form is not None and (form.get("type") != "json_object" or "value" not in form):
            await self._complain(f"response_format {form}", reply)
            return
        self.sent.append(payload)
        words = f"You said {payload['messages'][-1]['content']}".split()
        usage = {"prompt_tokens": 9, "completion_tokens": len(words), "total_tokens": 99}
        if not payload.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {"id": "", "object": "chat.completion", "choices": [choice], "usage": usage}
            await reply.answer(200, whole, self._headers())
            return
        await reply.begin(headers=self._headers())
        for number, word in enumerate(words):
            delta = {"role": "assistant", "content": f" {word}" if number else word}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await reply.event({"id": "", "choices": [choice], "usage": None})
        last = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
        await reply.event({"id": "", "choices": [last], "usage": None})
        await reply.event({"id": "", "choices": [], "usage": usage})
        await reply.event("[DONE]")
        await reply.end()

    async def _complain(self, why: str, reply: Reply) -> None:
        self.refused.append(why)
        await reply.answer(422, {"error": why})


def scene_of(payload: Any) -> str:
    """The scene that a payload asks for."""
    text = payload.decode("latin-1") if isinstance(payload, bytes) else json.dumps(payload)
    if isinstance(payload, dict) and isinstance(payload.get("inputs"), str):
        with contextlib.suppress(ValueError):
            text += base64.b64decode(payload["inputs"], validate=True).decode("latin-1")
    found = re.findall(r"play:(\w+)", text)
    return found[-1] if found else "normal"
