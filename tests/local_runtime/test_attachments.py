"""Adapters and pictures, from the call to the child: names, offers, URLs, and what is refused."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from local_runtime.adapter import LocalAdapter
from local_runtime.attachments import AdapterSource
from local_runtime.runtime import LocalModelSpec, LocalRuntime, RuntimeConfigError
from plugins.contract import AdapterError, FailureKind
from plugins.http.fetch import Fetcher
from tests.local_runtime import drawing
from tests.local_runtime.calls import MODEL, SMOLLM_SOURCE, answer, order
from tests.local_runtime.conftest import PRICE_NANO_USD_PER_SECOND
from tests.local_runtime.engines.llama.making import lora_file, projector_file

RED = "acme/red"


def spec(folder: Path, **changes: Any) -> LocalModelSpec:
    whole = LocalModelSpec(
        id=MODEL,
        source=SMOLLM_SOURCE,
        context_length=1024,
        threads=1,
        projector=f"file:{projector_file(folder / 'mmproj.gguf')}",
        adapters=[AdapterSource(id=RED, source=f"file:{lora_file(folder / 'red.gguf')}")],
    )
    return replace(whole, **changes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def adapter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalAdapter]:
    """One child for all tests; it reads URLs of this machine."""
    runtime = LocalRuntime([spec(tmp_path_factory.mktemp("attachments"))])
    fetcher = Fetcher([ip_network("127.0.0.0/8")], "test")
    made = LocalAdapter(runtime, price_nano_usd_per_second=PRICE_NANO_USD_PER_SECOND, fetch=fetcher)
    await made.start()
    yield made
    await made.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def seen(*urls: str, text: str = "What is this?", **params: Any) -> Any:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*pictures, {"type": "text", "text": text}]
    params = {"temperature": 0, "max_tokens": 8, "ignore_eos": True, **params}
    return order(messages=[{"role": "user", "content": content}], **params)


async def failure(adapter: LocalAdapter, call: Any) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        await answer(adapter, call)
    return caught.value


async def test_offers(adapter: LocalAdapter) -> None:
    plain, red = adapter.offers()
    assert (plain.model, red.model) == (MODEL, RED)
    assert (plain.upstream_id, red.upstream_id) == (MODEL, RED)
    assert plain.input_modalities == red.input_modalities == frozenset({"text", "image"})
    assert red.context_length == plain.context_length == 1024


async def test_an_adapter_is_a_model_of_its_own(adapter: LocalAdapter) -> None:
    params: dict[str, Any] = {"temperature": 0, "max_tokens": 16, "ignore_eos": True}
    calls = [order("Tell me about tea.", **params) for _ in range(2)]
    plain, red = await asyncio.gather(
        answer(adapter, calls[0]), answer(adapter, replace(calls[1], upstream_id=RED))
    )
    assert plain.text() != red.text()
    (status,) = adapter.runtime.status()  # one child, one copy of the weights
    assert status.crashes == 0


async def test_pictures_in_data_urls(adapter: LocalAdapter) -> None:
    one, other = (drawing.data_url(drawing.png(seed=seed)) for seed in (101, 102))
    first = await answer(adapter, seen(one))
    again = [await answer(adapter, seen(one, stream=stream)) for stream in (False, True)]
    assert again[0].text() == again[1].text() != (await answer(adapter, seen(other))).text()
    assert again[0].usage.cache_read_tokens > first.usage.cache_read_tokens
    kinds = ((drawing.jpeg(), "image/jpeg"), (drawing.gif(), "image/gif"))
    many = await answer(adapter, seen(*(drawing.data_url(*each) for each in kinds)))
    assert many.usage.input_tokens + many.usage.cache_read_tokens > 32


@contextmanager
def web(content: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.send_header("content-type", "image/png")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/picture.png"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_pictures_at_urls(adapter: LocalAdapter) -> None:
    picture = drawing.png(seed=3)
    with web(picture) as url:
        fetched = await answer(adapter, seen(url))
    sent = await answer(adapter, seen(drawing.data_url(picture)))
    assert fetched.usage.output_tokens == sent.usage.output_tokens == 8
    assert sent.usage.input_tokens == 1  # the same picture, the same cells
    with web(b"<html>no</html>") as url:
        failed = await failure(adapter, seen(url))
    assert failed.kind is FailureKind.BAD_REQUEST
    assert failed.message.startswith("messages[0].content[0]: ")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "only https:, http: and data: URLs are read"),
        ("ftp://example.com/a.png", "only https:, http: and data: URLs are read"),
        ("", "must be an object with a url"),
        ("data:image/png;base64,%%%", "not valid base64"),
        ("data:image/png,abc", "of the form"),
        ("data:", "of the form"),
        (drawing.data_url(b""), "empty"),
        (drawing.data_url(b"hello, world"), "no picture"),
        (drawing.data_url(drawing.png()[:200]), "cut short"),
        (drawing.data_url(b"RIFF\0\0\0\0WEBPVP8 "), "WebP"),
        (drawing.data_url(b"\x89PNG" + b"\0" * (21 << 20)), "20 MiB"),
        ("http://10.0.0.1/a.png", "not public"),
    ],
)
async def test_what_is_refused(adapter: LocalAdapter, url: str, words: str) -> None:
    good = drawing.data_url(drawing.png())
    failed = await failure(adapter, seen(good, url))
    assert failed.kind is FailureKind.BAD_REQUEST
    assert failed.message.startswith("messages[0].content[1]: ")
    assert words in failed.message
    assert failed.param == "messages"
    assert (await answer(adapter, seen(good))).reason() == "length"


async def test_too_many_and_too_much(adapter: LocalAdapter) -> None:
    failed = await failure(adapter, seen(*[drawing.data_url(drawing.png())] * 33))
    assert "messages[0].content[32]: at most 32" in failed.message
    large = drawing.data_url(b"\x89PNG" + b"\0" * (15 << 20))
    failed = await failure(adapter, seen(large, large, large))
    assert "all pictures together" in failed.message


async def test_the_place_is_free_after_a_refusal(adapter: LocalAdapter) -> None:
    for _ in range(20):
        await failure(adapter, seen("file:///etc/passwd"))
    assert adapter.runtime.models[MODEL].calls_open == 0


def cut(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-100])
    return f"file:{path}"


BAD: list[tuple[Callable[[Path], dict[str, Any]], str]] = [
    (lambda f: {"projector": f"file:{lora_file(f / 'a.gguf')}"}, "no projector"),
    (lambda f: {"projector": "file:/nowhere.gguf"}, "projector: there is no file"),
    (lambda f: {"projector": cut(projector_file(f / "a.gguf"))}, "cut short"),
    (
        lambda f: {"adapters": [AdapterSource(id="x/y", source=SMOLLM_SOURCE)]},
        "the adapter x/y: it is no LoRA adapter",
    ),
    (
        lambda f: {
            "adapters": [
                AdapterSource(
                    id="x/y", source=f"file:{lora_file(f / 'a.gguf', architecture='qwen2')}"
                )
            ]
        },
        "'qwen2'",
    ),
    (
        lambda f: {"adapters": [AdapterSource(id=MODEL, source=f"file:{lora_file(f / 'a.gguf')}")]},
        "have this id",
    ),
    (lambda f: {"source": "fake:"}, "a fake model has no projector"),
]


@pytest.mark.parametrize(("changes", "words"), BAD)
async def test_what_does_not_fit_is_said_at_the_start(
    tmp_path: Path, changes: Callable[[Path], dict[str, Any]], words: str
) -> None:
    with pytest.raises(RuntimeConfigError) as caught:
        LocalRuntime([spec(tmp_path, **changes(tmp_path))])
    assert words in str(caught.value)
    assert MODEL in str(caught.value)
