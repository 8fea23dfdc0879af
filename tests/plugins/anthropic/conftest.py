"""A played Anthropic, an adapter in front of it, and calls for it."""

import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from plugins.anthropic.plugin import PLUGIN, AnthropicSettings
from plugins.chat import ChatRequest, Message
from plugins.contract import (
    Adapter,
    AdapterError,
    FailureKind,
    InferenceCall,
    ModelEntry,
    Price,
    Toolbox,
)
from plugins.tasks import Media
from tests.plugins.conftest import make_call
from tests.upstreams.anthropic import KEY, PlayedAnthropic

OLDER, NEWER = "claude-sonnet-4-5-20250929", "claude-opus-4-7"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
NOOP: dict[str, Any] = {"type": "function", "function": {"name": "noop"}}


async def fetch(url: str) -> Media:
    """Stands for the host's reader of URLs, which is tested where it lives."""
    if url.endswith(".png"):
        return Media(data=PNG, media_type="application/octet-stream")
    raise AdapterError(FailureKind.BAD_REQUEST, "the URL cannot be read")


def toolbox() -> Toolbox:
    """Two models, one older and one newer."""
    price = Price(input=3_000_000_000, output=15_000_000_000)
    return Toolbox(
        provider_id="anthropic",
        models=(
            ModelEntry(id="anthropic/older", upstream_id=OLDER, price=price),
            ModelEntry(id="anthropic/newer", upstream_id=NEWER, price=price),
        ),
        log=logging.getLogger("tests.plugins"),
        monotonic_ns=time.monotonic_ns,
        user_agent="Turnpike/test",
        fetch=fetch,
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
        model="anthropic/older", messages=msgspec.convert(said, list[Message]), **params
    )
    return msgspec.structs.replace(call, request=request, upstream_id=model, api_key=key)


@pytest.fixture
async def played() -> AsyncIterator[PlayedAnthropic]:
    async with PlayedAnthropic() as provider:
        yield provider


@pytest.fixture
async def adapter(played: PlayedAnthropic) -> AsyncIterator[Adapter]:
    """The adapter, started, in front of ``played``."""
    built = PLUGIN.build(AnthropicSettings(base_url=played.base_url), toolbox())
    await built.start()
    yield built
    await built.close()
