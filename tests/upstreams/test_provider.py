"""The played provider itself: tests of others lean on it."""

import asyncio
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import httpx

from tests.upstreams.provider import PlayedProvider
from tests.upstreams.rates import Rates
from tests.upstreams.scenes import Scene


def body(prompt: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **more}


async def test_books_equal_the_usage_it_reports() -> None:
    async with PlayedProvider() as provider, httpx.AsyncClient(base_url=provider.base_url) as http:
        reply = await http.post("/chat/completions", json=body(max_tokens=5, n=2))
        usage = reply.json()["usage"]
        booked = provider.books[-1]
        assert usage["prompt_tokens"] == booked.prompt_tokens == 3
        assert usage["completion_tokens"] == booked.completion_tokens == 10
        assert [choice["finish_reason"] for choice in reply.json()["choices"]] == ["length"] * 2
        assert booked.finished


async def test_stream_has_usage_only_when_asked() -> None:
    async with PlayedProvider() as provider, httpx.AsyncClient(base_url=provider.base_url) as http:
        asking: dict[str, Any] = {"stream_options": {"include_usage": True}}
        for options in ({}, asking):
            reply = await http.post("/chat/completions", json=body(stream=True, **options))
            lines = [line for line in reply.text.split("\n") if line]
            assert lines[-1] == "data: [DONE]"
            assert ('"usage"' in reply.text) == bool(options)
            assert provider.books[-1].completion_tokens == 8


async def test_scenes_by_script_by_model_by_prompt_and_always() -> None:
    async with PlayedProvider(always="long") as provider:
        async with httpx.AsyncClient(base_url=provider.base_url) as http:
            provider.script("rate_limited", Scene(name="mine", words=1))
            statuses = [
                (await http.post("/chat/completions", json=sent)).status_code
                for sent in (
                    body(),
                    body(),
                    body() | {"model": "play:not_found"},
                    body("play:no_credit please"),
                    body(),
                )
            ]
        assert statuses == [429, 200, 404, 402, 200]
        names = [booked.scene for booked in provider.books]
        assert names == ["rate_limited", "mine", "not_found", "no_credit", "long"]


async def test_client_that_leaves_is_booked_for_what_was_written() -> None:
    async with PlayedProvider() as provider:
        provider.script(Scene(words=1000, gap_s=0.01))
        async with httpx.AsyncClient(base_url=provider.base_url) as http:
            sent = body(stream=True)
            async with http.stream("POST", "/chat/completions", json=sent) as reply:
                async for _ in reply.aiter_lines():
                    break
        await provider.wait_until(lambda: provider.books[0].gone)
        assert 0 <= provider.books[0].completion_tokens < 100
        assert not provider.books[0].finished


def test_runs_as_a_process_with_a_control_route() -> None:
    command = [sys.executable, "-m", "tests.upstreams.provider", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            control = base_url.removesuffix("/v1") + "/control"
            _post(control, {"script": ["unavailable"], "always": "long"})
            url = f"{base_url}/chat/completions"
            try:
                _post(url, body())
            except urllib.error.HTTPError as refused:
                assert refused.code == 503
                refused.close()
            assert _post(url, body())["usage"]["completion_tokens"] == 100
            with urllib.request.urlopen(control) as reply:
                books = json.load(reply)["books"]
            assert [booked["status"] for booked in books] == [503, 200]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0


def _post(url: str, sent: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(sent).encode(), method="POST")
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


async def test_a_choice_by_request_and_bills_at_rates() -> None:
    def choose(request: dict[str, Any]) -> Scene | str | None:
        return Scene(words=4, compute_s="1.5") if request["model"] == "m" else None

    async with PlayedProvider(choose=choose) as provider:
        async with httpx.AsyncClient(base_url=provider.base_url) as http:
            reply = await http.post("/chat/completions", json=body())
            assert reply.headers["x-compute-time"] == "1.5"
            await http.post("/chat/completions", json=body() | {"model": "other"})
        first, second = provider.books
        assert first.bill(Rates(input=10, output=100, per_request=7)) == 3 * 10 + 4 * 100 + 7
        assert first.bill(Rates(per_second=1001)) == 1502  # 1501.5, rounded up
        assert second.bill(Rates(output=1)) == 8


async def test_a_closed_gate_and_the_points_where_an_answer_hangs() -> None:
    async with PlayedProvider() as provider, httpx.AsyncClient(base_url=provider.base_url) as http:
        provider.gate.clear()
        waiting = asyncio.create_task(http.post("/chat/completions", json=body()))
        await provider.wait_until(lambda: len(provider.books) == 1)
        assert not provider.books[0].finished
        provider.gate.set()
        assert (await waiting).status_code == 200
        for scene in (Scene(hang_at="head"), Scene(hang_at="end"), Scene(hang_after=2)):
            provider.script(scene)
            sent = body(stream=True)
            async with http.stream("POST", "/chat/completions", json=sent) as reply:
                await provider.wait_until(lambda: provider.books[-1].hanging)
                assert reply.status_code == 200
            await provider.wait_until(lambda: provider.books[-1].gone)


async def test_garbage_in_the_middle_of_a_stream() -> None:
    async with PlayedProvider() as provider, httpx.AsyncClient(base_url=provider.base_url) as http:
        provider.script(Scene(garbage_after=700))
        reply = await http.post("/chat/completions", json=body(stream=True))
        assert b'{"choices":\xff\xfe[' in reply.content
        assert b"[DONE]" not in reply.content
        assert not provider.books[-1].finished
