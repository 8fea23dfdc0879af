"""URLs that callers name never reach a server of one's own."""

from typing import Any

import pytest
from msgspec.structs import replace

from plugins.chat import ChatRequest, Message
from plugins.conformance import run
from plugins.contract import AdapterError, FailureKind
from plugins.openai_compatible.presets import PRESETS
from plugins.tasks import Media
from tests.plugins.conftest import make_call, make_toolbox
from tests.plugins.openai_compatible.test_presets import PLUGINS, settings_of
from tests.upstreams.preset_servers import serve

OWN = ["llama_server", "lm_studio", "ollama", "sglang", "tgi", "vllm"]
DATA = "data:image/png;base64,QUJD"
TEXT = {"type": "text", "text": "look"}


def picture(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


async def sent_to(name: str, content: Any, stream: bool = False) -> tuple[Any, list[str]]:
    """The content as the server gets it, and the URLs that were read for it."""
    read: list[str] = []

    async def fetch(url: str) -> Media:
        read.append(url)
        if "forbidden" in url:
            raise AdapterError(FailureKind.BAD_REQUEST, "this URL may not be read")
        return Media(data=b"ABC", media_type="image/png")

    async with serve(name) as server:
        plugin = PLUGINS[name]
        adapter = plugin.build(settings_of(plugin, server), replace(make_toolbox(), fetch=fetch))
        await adapter.start()
        message = Message(role="user", content=content)
        call = replace(make_call(stream), request=ChatRequest(model="m", messages=[message]))
        try:
            await run(adapter, call)
        finally:
            await adapter.close()
        assert call.chat.messages[0].content is content
        return server.asked[-1].json()["messages"][0]["content"], read


def test_servers_of_one_s_own_get_data() -> None:
    assert [preset.name for preset in PRESETS if preset.inlines] == sorted(OWN, key=_place)


def _place(name: str) -> int:
    return [preset.name for preset in PRESETS].index(name)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", OWN)
async def test_a_picture_is_read_and_sent(name: str, stream: bool) -> None:
    content, read = await sent_to(
        name, [TEXT, picture("https://x.example/a", detail="low")], stream
    )
    assert content == [TEXT, picture(DATA, detail="low")]
    assert read == ["https://x.example/a"]


async def test_other_forms_of_a_part() -> None:
    given = [{"type": "image_url", "image_url": "http://x.example/a"}, picture(DATA), {"type": "x"}]
    content, read = await sent_to("vllm", given)
    assert content == [picture(DATA), picture(DATA), {"type": "x"}]
    assert len(read) == 1


async def test_text_is_left_alone() -> None:
    assert await sent_to("vllm", "https://x.example/a") == ("https://x.example/a", [])


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "http://forbidden/", "//h/x"])
async def test_urls_that_may_not_be_read(url: str) -> None:
    with pytest.raises(AdapterError) as caught:
        await sent_to("vllm", [picture(url)])
    assert caught.value.kind is FailureKind.BAD_REQUEST


async def test_companies_read_urls_themselves() -> None:
    content, read = await sent_to("together", [picture("https://x.example/a")])
    assert (content, read) == ([picture("https://x.example/a")], [])
