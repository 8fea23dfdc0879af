"""A played provider, and adapters that talk to it."""

import itertools
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plugins.chat import ChatRequest, Message
from plugins.contract import Adapter, InferenceCall, ModelEntry, Price, Toolbox
from plugins.http.fetch import Fetcher
from plugins.openai_compatible.plugin import PLUGIN
from tests.upstreams.provider import PlayedProvider

API_KEY = "key-of-the-appliance"
_numbers = itertools.count()


def make_toolbox(provider_id: str = "played") -> Toolbox:
    """A toolbox with one priced and one free model."""
    price = Price(input=200_000_000, output=600_000_000)
    return Toolbox(
        provider_id=provider_id,
        models=(
            ModelEntry(id="acme/tiny", upstream_id="m", price=price, context_length=8192),
            ModelEntry(id="acme/free", upstream_id="f", price=Price(free=True)),
        ),
        log=logging.getLogger("tests.plugins"),
        monotonic_ns=time.monotonic_ns,
        user_agent="Turnpike/test",
        fetch=Fetcher((), "Turnpike/test"),
    )


def make_call(
    stream: bool = False,
    *,
    prompt: str = "one two three four",
    api_key: str | None = API_KEY,
    first_event_s: float = 10.0,
    idle_s: float = 10.0,
    deadline_s: float = 20.0,
    **params: Any,
) -> InferenceCall:
    """A call with one user message; ``params`` are further request parameters."""
    number = next(_numbers)
    messages = [Message(role="user", content=prompt)]
    return InferenceCall(
        call_id=f"call-{number}",
        attempt_id=f"attempt-{number}",
        upstream_id="m",
        request=ChatRequest(model="acme/tiny", messages=messages, stream=stream, **params),
        stream=stream,
        api_key=api_key,
        first_event_s=first_event_s,
        idle_s=idle_s,
        deadline_s=deadline_s,
    )


@pytest.fixture
async def provider() -> AsyncIterator[PlayedProvider]:
    async with PlayedProvider() as played:
        yield played


@pytest.fixture
async def adapter(provider: PlayedProvider) -> AsyncIterator[Adapter]:
    """The OpenAI-compatible adapter, started, in front of ``provider``."""
    settings = PLUGIN.settings(base_url=provider.base_url)
    built = PLUGIN.build(settings, make_toolbox())
    await built.start()
    yield built
    await built.close()
