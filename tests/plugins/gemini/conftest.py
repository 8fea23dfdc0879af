"""A played Gemini, an adapter in front of it, and calls for it."""

import ipaddress
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from plugins.chat import ChatRequest, Message
from plugins.contract import Adapter, InferenceCall, ModelEntry, Price, Toolbox
from plugins.gemini.plugin import PLUGIN, GeminiSettings
from plugins.http.fetch import Fetcher
from tests.plugins.conftest import make_call
from tests.upstreams.gemini import KEY, PlayedGemini

OLDER, NEWER, PLAIN = "gemini-2.5-flash", "gemini-3.1-pro-preview", "gemma-3-27b-it"
EMBEDS = "gemini-embedding-001"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
WAV = b"RIFF\x24\0\0\0WAVEfmt sound"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
NOOP: dict[str, Any] = {"type": "function", "function": {"name": "noop"}}


def toolbox(*tasks: str) -> Toolbox:
    """A model of each kind, or one with the tasks."""
    price = Price(input=300_000_000, output=2_500_000_000)
    models = [
        ModelEntry(id=f"google/{name}", upstream_id=name, price=price)
        for name in (OLDER, NEWER, PLAIN)
    ]
    models.append(
        ModelEntry(
            id="google/embeds",
            upstream_id=EMBEDS,
            price=Price(input=150_000_000),
            tasks=tasks or ("feature-extraction",),
        )
    )
    return Toolbox(
        provider_id="gemini",
        models=tuple(models),
        log=logging.getLogger("tests.plugins"),
        monotonic_ns=time.monotonic_ns,
        user_agent="Turnpike/test",
        fetch=Fetcher((ipaddress.IPv4Network("127.0.0.0/8"),), "Turnpike/test"),
    )


def ask(
    stream: bool = False,
    *,
    model: str = OLDER,
    messages: list[dict[str, Any]] | None = None,
    prompt: str = "one two three",
    key: str | None = KEY,
    wait_s: float = 15.0,
    **params: Any,
) -> InferenceCall:
    """A call; ``messages`` are as a client sends them, checked as the host checks them."""
    said = messages or [{"role": "user", "content": prompt}]
    call = make_call(stream, first_event_s=wait_s, idle_s=wait_s, deadline_s=30.0)
    request = ChatRequest(
        model="google/model", messages=msgspec.convert(said, list[Message]), **params
    )
    return msgspec.structs.replace(call, request=request, upstream_id=model, api_key=key)


@pytest.fixture
async def played() -> AsyncIterator[PlayedGemini]:
    async with PlayedGemini() as provider:
        yield provider


@pytest.fixture
async def adapter(played: PlayedGemini) -> AsyncIterator[Adapter]:
    """The adapter, started, in front of ``played``."""
    built = PLUGIN.build(GeminiSettings(base_url=played.base_url), toolbox())
    await built.start()
    yield built
    await built.close()
