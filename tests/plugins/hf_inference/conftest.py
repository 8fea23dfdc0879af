"""A played HF Inference, an adapter in front of it, and calls for it."""

import ipaddress
import itertools
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plugins.chat import ChatRequest, Message
from plugins.contract import Adapter, InferenceCall, ModelEntry, Price, Toolbox
from plugins.hf_inference.plugin import PLUGIN, HfInferenceSettings
from plugins.http.fetch import Fetcher
from plugins.tasks import (
    EmbeddingRequest,
    ImageRequest,
    Media,
    Request,
    SpeechRequest,
    TranscriptionRequest,
)
from tests.upstreams.hf_inference import KEY, MODEL, PNG, PlayedHfInference

_numbers = itertools.count()
PRICE = Price(compute_per_second=120_000)


def toolbox(*tasks: str, request_id_header: str | None = None) -> Toolbox:
    """One model, of the tasks."""
    return Toolbox(
        provider_id="hf",
        models=(ModelEntry(id="acme/model", upstream_id=MODEL, tasks=tasks, price=PRICE),),
        log=logging.getLogger("tests.plugins.hf"),
        monotonic_ns=time.monotonic_ns,
        user_agent="Turnpike/test",
        fetch=Fetcher((ipaddress.IPv4Network("127.0.0.0/8"),), "Turnpike/test"),
        request_id_header=request_id_header,
    )


def order(request: Request, **given: Any) -> InferenceCall:
    """A work order for a request, priced by compute."""
    number = next(_numbers)
    known: dict[str, Any] = {
        "upstream_id": MODEL,
        "api_key": KEY,
        "first_event_s": 15.0,
        "deadline_s": 15.0,
        "compute_ns_max": 15_000_000_000,
        "stream": request.stream is True,
    }
    return InferenceCall(
        call_id=f"call-{number}",
        attempt_id=f"attempt-{number}",
        request=request,
        **{**known, **given},
    )


def chat(stream: bool = False, scene: str = "", **params: Any) -> ChatRequest:
    text = f"play:{scene}" if scene else "one two"
    messages = [Message(role="user", content=text)]
    return ChatRequest(model="acme/model", messages=messages, stream=stream, **params)


def embed(scene: str = "", **params: Any) -> EmbeddingRequest:
    texts: list[Any] = [f"play:{scene}" if scene else "one", "three"]
    return EmbeddingRequest(model="acme/model", **{"input": texts, **params})


def image(scene: str = "", **params: Any) -> ImageRequest:
    return ImageRequest(model="acme/model", prompt=f"play:{scene}" if scene else "a cat", **params)


def edit(scene: str = "", **params: Any) -> ImageRequest:
    return image(scene, **{"image": [Media(data=PNG, media_type="image/png")], **params})


def speech(scene: str = "", **params: Any) -> SpeechRequest:
    return SpeechRequest(model="acme/model", input=f"play:{scene}" if scene else "hello", **params)


def listening(scene: str = "", **params: Any) -> TranscriptionRequest:
    sound = b"RIFF\0\0\0\0WAVE" + (f"play:{scene}".encode() if scene else b"sound" * 100)
    file = Media(data=sound, media_type="audio/wav")
    return TranscriptionRequest(model="acme/model", **{"file": file, **params})


@pytest.fixture
async def played() -> AsyncIterator[PlayedHfInference]:
    async with PlayedHfInference() as provider:
        yield provider


@pytest.fixture
async def adapter(played: PlayedHfInference) -> AsyncIterator[Adapter]:
    """The adapter, started, in front of ``played``."""
    built = PLUGIN.build(
        HfInferenceSettings(base_url=played.base_url, bill_to="acme"), toolbox("text-to-image")
    )
    await built.start()
    yield built
    await built.close()
