"""The tutorial's adapter, and the tutorial."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import plugins.echo.plugin as echo_module
from plugins.chat import ChatRequest, Message
from plugins.conformance import run
from plugins.contract import Adapter, Chunk, InferenceCall, Usage
from plugins.echo.plugin import PLUGIN, EchoSettings
from tests.plugins.conftest import make_call, make_toolbox


@pytest.fixture
def echo() -> Adapter:
    return PLUGIN.build(PLUGIN.settings(), make_toolbox("echo"))


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_with_the_last_user_message(echo: Adapter, stream: bool) -> None:
    messages = [
        Message(role="system", content="be brief"),
        Message(role="user", content="first"),
        Message(role="assistant", content="first"),
        Message(role="user", content="say  it\nagain"),
    ]
    request = ChatRequest(model="acme/tiny", messages=messages)
    call = InferenceCall(
        call_id="c", attempt_id="a", upstream_id="m", request=request, stream=stream
    )
    outcome = await run(echo, call)
    assert outcome.text == "say it again"
    assert outcome.finish_reason == "stop"
    assert outcome.usage == Usage(input_tokens=7, output_tokens=3)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_stops_at_the_limit(echo: Adapter, stream: bool, name: str) -> None:
    limit: dict[str, Any] = {name: 2}
    outcome = await run(echo, make_call(stream, **limit))
    assert (outcome.text, outcome.finish_reason) == ("one two", "length")
    assert outcome.usage.output_tokens == 2


async def test_streams_one_word_per_chunk(echo: Adapter) -> None:
    outcome = await run(echo, make_call(True))
    chunks = [event.choices[0] for event in outcome.events if isinstance(event, Chunk)]
    assert [part.delta.content or None for part in chunks] == [
        "one",
        " two",
        " three",
        " four",
        None,
    ]
    assert chunks[0].delta.role == "assistant"


async def test_waits_before_each_word() -> None:
    slow = PLUGIN.build(EchoSettings(word_delay_ms=30), make_toolbox())
    loop = asyncio.get_running_loop()
    for stream in (False, True):
        began = loop.time()
        await run(slow, make_call(stream))
        assert loop.time() - began > 0.11


async def test_nothing_said_is_answered_too(echo: Adapter) -> None:
    request = ChatRequest(model="m", messages=[Message(role="system", content="quiet")])
    call = InferenceCall(
        call_id="c", attempt_id="a", upstream_id="m", request=request, stream=False
    )
    assert (await run(echo, call)).text == "nothing was said"


def test_offers_are_priced_as_configured_and_name_what_they_honour(echo: Adapter) -> None:
    tiny, free = echo.offers()
    assert (tiny.provider, tiny.model, tiny.price.output) == ("echo", "acme/tiny", 600_000_000)
    assert free.price.free
    assert tiny.supported_params is not None
    assert "temperature" not in tiny.supported_params


def test_readme_shows_the_file_as_it_is() -> None:
    file = Path(echo_module.__file__)
    readme = (file.parent.parent / "README.md").read_text()
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert blocks[0] == file.read_text()
