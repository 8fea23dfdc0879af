"""A played Bedrock, an adapter in front of it, and calls for it."""

import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from plugins.bedrock.plugin import PLUGIN, BedrockSettings
from plugins.contract import Adapter, InferenceCall, ModelEntry, Price, Toolbox
from tests.plugins.anthropic import conftest as claude
from tests.upstreams.bedrock import REGION, PlayedBedrock
from tests.upstreams.bedrock_rules import API_KEY, KEY_ID, SECRET, TOKEN

SIGNING, TEMPORARY, BEARER = f"{KEY_ID}:{SECRET}", f"{KEY_ID}:{SECRET}:{TOKEN}", API_KEY
OLDER = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
NEWER = "arn:aws:bedrock:eu-central-2:123456789012:inference-profile/eu.anthropic.claude-opus-4-7"
NOVA, NOVA_2 = "amazon.nova-pro-v1:0", "eu.amazon.nova-2-lite-v1:0"
GPT, MISTRAL = "openai.gpt-oss-120b-1:0", "mistral.mistral-large-3-v1:0"


def toolbox() -> Toolbox:
    """A model of each family."""
    price = Price(input=3_000_000_000, output=15_000_000_000)
    models = tuple(
        ModelEntry(id=f"aws/{number}", upstream_id=name, price=price)
        for number, name in enumerate((OLDER, NEWER, NOVA, NOVA_2, GPT, MISTRAL))
    )
    return Toolbox(
        provider_id="bedrock",
        models=models,
        log=logging.getLogger("tests.plugins"),
        monotonic_ns=time.monotonic_ns,
        user_agent="Turnpike/test",
        fetch=claude.fetch,
    )


def ask(
    stream: bool = False, *, model: str = OLDER, key: str | None = SIGNING, **params: Any
) -> InferenceCall:
    """A call; see the same function of Anthropic's tests."""
    call = claude.ask(stream, **params)
    return msgspec.structs.replace(call, upstream_id=model, api_key=key)


@pytest.fixture
async def played() -> AsyncIterator[PlayedBedrock]:
    async with PlayedBedrock() as provider:
        yield provider


@pytest.fixture
async def adapter(played: PlayedBedrock) -> AsyncIterator[Adapter]:
    """The adapter, started, in front of ``played``."""
    settings = BedrockSettings(base_url=played.base_url, region=REGION)
    built = PLUGIN.build(settings, toolbox())
    await built.start()
    yield built
    await built.close()
