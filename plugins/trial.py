"""The calls that ``turnpike plugins check`` makes: small ones, of every task."""

import io
import itertools
import struct
import wave
import zlib
from typing import Any

import msgspec
from msgspec.structs import fields

from plugins.chat import ChatRequest, Message
from plugins.contract import InferenceCall
from plugins.tasks import (
    CONVERSATIONAL,
    FEATURE_EXTRACTION,
    IMAGE_TO_IMAGE,
    SPEECH_TO_TEXT,
    TEXT_RANKING,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    TEXT_TO_VIDEO,
    EmbeddingRequest,
    ImageRequest,
    Media,
    Request,
    RerankRequest,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)

MODEL = "check/model"
UNKNOWN_UPSTREAM_ID = "turnpike-check/no-such-model"
PROMPTS = {
    CONVERSATIONAL: "Count from one to ten, in words, on one line.",
    FEATURE_EXTRACTION: "A toll road.",
    TEXT_RANKING: "Where is the toll road?",
    TEXT_TO_IMAGE: "A red circle on white.",
    IMAGE_TO_IMAGE: "Make it blue.",
    TEXT_TO_VIDEO: "A red ball that rolls.",
    TEXT_TO_SPEECH: "Good morning.",
}
TOOLS_PROMPT = "How is the weather in Rome and in Oslo? Call the tool once for each."
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
TOKENS_MAX = 512
_KINDS: dict[str, type[Request]] = {
    CONVERSATIONAL: ChatRequest,
    FEATURE_EXTRACTION: EmbeddingRequest,
    TEXT_RANKING: RerankRequest,
    TEXT_TO_IMAGE: ImageRequest,
    IMAGE_TO_IMAGE: ImageRequest,
    TEXT_TO_VIDEO: VideoRequest,
    TEXT_TO_SPEECH: SpeechRequest,
    SPEECH_TO_TEXT: TranscriptionRequest,
}
_SIDE_PX = 256
_SOUND_HZ = 16_000


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried: a model by its provider's name for it, with a task, a key, and further
    parameters of the request. ``patience_s`` is the longest that a call may take."""

    upstream_id: str
    task: str = CONVERSATIONAL
    api_key: str | None = None
    prompt: str | None = None
    params: dict[str, Any] = {}
    tools: bool = False
    quick: bool = False
    patience_s: float = 120.0


class BadTrial(Exception):
    """A parameter that the request does not have, or that has no such value."""


class Calls:
    """Makes the calls of a trial. Raises BadTrial."""

    def __init__(self, trial: Trial, supported_params: frozenset[str] | None) -> None:
        self._trial = trial
        self._numbers = itertools.count(1)
        self._params: dict[str, Any] = {}
        limits = ("max_tokens", "max_completion_tokens")
        if trial.task == CONVERSATIONAL and not set(limits) & set(trial.params):
            known = limits if supported_params is None else supported_params
            name = next((each for each in limits if each in known), None)
            self._params = {name: TOKENS_MAX} if name else {}
        self._params |= trial.params
        self.call()  # a wrong parameter is told before anything is sent

    def call(self, stream: bool = False) -> InferenceCall:
        """One that the provider answers."""
        return self._order(self._request(stream, self._trial.prompt, {}), stream)

    def tools(self, stream: bool) -> InferenceCall:
        """One that it answers with tool calls."""
        return self._order(self._request(stream, TOOLS_PROMPT, {"tools": [TOOL]}), stream)

    def unknown(self) -> InferenceCall:
        """One for a model that nobody serves."""
        return msgspec.structs.replace(self.call(), upstream_id=UNKNOWN_UPSTREAM_ID)

    def _order(self, request: Request, stream: bool) -> InferenceCall:
        number = next(self._numbers)
        patience_s = self._trial.patience_s
        return InferenceCall(
            call_id=f"check-{number}",
            attempt_id=f"check-{number}-1",
            upstream_id=self._trial.upstream_id,
            request=request,
            stream=stream,
            api_key=self._trial.api_key,
            first_event_s=patience_s,
            idle_s=patience_s,
            deadline_s=patience_s,
        )

    def _request(self, stream: bool, prompt: str | None, more: dict[str, Any]) -> Request:
        task = self._trial.task
        kind = _KINDS[task]
        given = {**self._params, **more}
        said = prompt or PROMPTS.get(task, "")
        if kind is ChatRequest:
            given |= {"messages": [msgspec.to_builtins(Message(role="user", content=said))]}
            given |= {"stream": True} if stream else {}
        elif kind is EmbeddingRequest or kind is SpeechRequest:
            given["input"] = said
        elif kind is RerankRequest:
            given |= {"query": said, "documents": ["On the hill.", "Fish swim."]}
        elif said:
            given["prompt"] = said
        media: dict[str, Any] = {}
        if task == IMAGE_TO_IMAGE:
            media["image"] = [Media(data=_picture(), media_type="image/png", name="check.png")]
        if kind is TranscriptionRequest:
            media["file"] = Media(data=_sound(), media_type="audio/wav", name="check.wav")
        by_host = {"image", "mask", "file", "input_reference", "models", "provider"}
        refused = sorted(by_host & set(given)) + sorted(
            set(given) - {field.name for field in fields(kind)}
        )
        if refused:
            raise BadTrial(f"{task} takes no parameter {refused[0]!r}")
        try:
            return msgspec.convert({"model": MODEL, **given, **media}, kind)
        except msgspec.ValidationError as error:
            raise BadTrial(str(error)) from error


def _picture() -> bytes:
    """A white square as PNG."""
    row = b"\0" + b"\xff" * (3 * _SIDE_PX)
    head = struct.pack(">IIBBBBB", _SIDE_PX, _SIDE_PX, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(row * _SIDE_PX)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_part(kind, data) for kind, data in parts)


def _part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _sound() -> bytes:
    """A second of silence as WAV."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_SOUND_HZ)
        file.writeframes(bytes(2 * _SOUND_HZ))
    return written.getvalue()
