"""``python -m tests.bench.http_client``: what one call of the HTTP client costs, by itself.

Requests per second and processor time per request of one process with uvloop on one core, 64 at a
time, kept connections, against a static nginx on another core: a 300-byte POST that is answered
with 600 bytes (``whole``), or with 100 events and an end mark in one burst (``stream``). Clients
are compared within a round; ``ratio`` is to the other client's rate in the same round. pyreqwest,
which the client here took the place of, is measured only where it is installed.
"""

import argparse
import asyncio
import importlib
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from plugins.http.client import Client, HttpRequest
from tests.bench.load import CONNECTIONS, chat_body
from tests.bench.machine import find_tools, pinned, two_cores
from tests.bench.nginx import static_upstream, streamed_answer, whole_answer

ANSWERS = {"whole": len(whole_answer()), "stream": len(streamed_answer())}
PATIENCE_S = 60.0
Call = Callable[[], Awaitable[int]]

_HEADERS = (
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("authorization", "Bearer key-of-the-bench"),
)


def _ours(client: Client, body: bytes, mode: str) -> Call:
    time_of = asyncio.get_running_loop().time
    request = HttpRequest(target="/chat/completions", headers=_HEADERS, body=body)

    async def whole() -> int:
        by = time_of() + PATIENCE_S
        _, answer = await client.fetch(request, by=by, silence_s=PATIENCE_S)
        return len(answer)

    async def stream() -> int:
        exchange = await client.stream(request, by=time_of() + PATIENCE_S, silence_s=PATIENCE_S)
        size = 0
        try:
            while (piece := await exchange.read(time_of() + PATIENCE_S)) is not None:
                size += len(piece)
        finally:
            await exchange.close()
        return size

    return whole if mode == "whole" else stream


def _theirs(client: Any, url: str, body: bytes, mode: str) -> Call:
    """The same with pyreqwest, as it was used here: nothing is read ahead of a stream."""
    time_of = asyncio.get_running_loop().time
    ahead_bytes = 64 * 1024 if mode == "whole" else 0

    async def call() -> int:
        async with asyncio.timeout_at(time_of() + PATIENCE_S):
            builder = client.post(url).headers(list(_HEADERS)).body_bytes(body)
            request = builder.streamed_read_buffer_limit(ahead_bytes).build_streamed()
            response = await request.__aenter__()
            size = 0
            try:
                while (piece := await response.body_reader.read_chunk()) is not None:
                    size += len(piece.to_bytes())
            finally:
                await request.__aexit__(None, None, None)
            return size

    return call


async def _measure(call: Call, answer_bytes: int, seconds: float) -> dict[str, float]:
    ends = time.perf_counter() + seconds
    sizes = set()

    async def one_after_another() -> int:
        done = 0
        while time.perf_counter() < ends:
            sizes.add(await call())
            done += 1
        return done

    began, processor = time.perf_counter(), time.process_time()
    done = sum(await asyncio.gather(*(one_after_another() for _ in range(CONNECTIONS))))
    took, used = time.perf_counter() - began, time.process_time() - processor
    if sizes != {answer_bytes}:
        raise RuntimeError(f"expected {answer_bytes} bytes, answers had {sizes}")
    return {"requests_per_s": done / took, "processor_us": used / done * 1e6}


def _median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in rounds), 1) for name in rounds[0]}


async def _compare(port: int, mode: str, seconds: float, rounds: int) -> None:
    base_url = f"http://127.0.0.1:{port}/{mode}/v1"
    body = chat_body("m", stream=mode == "stream").encode()
    client = Client(base_url, user_agent="bench")
    await client.start()
    calls = {"ours": _ours(client, body, mode)}
    try:
        builder = importlib.import_module("pyreqwest.client").ClientBuilder()
        other = builder.no_proxy().user_agent("bench").build()
        calls["pyreqwest"] = _theirs(other, f"{base_url}/chat/completions", body, mode)
    except ImportError:
        pass
    found: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            figures = await _measure(call, ANSWERS[mode], seconds)
            if number:  # the first is the warm-up
                found[name].append(figures)
    for name, rows in found.items():
        line: dict[str, object] = {"bench": "http_client", "mode": mode, "client": name}
        line |= _median(rows)
        if name == "ours" and "pyreqwest" in found:
            ratios = [
                mine["requests_per_s"] / its["requests_per_s"]
                for mine, its in zip(rows, found["pyreqwest"], strict=True)
            ]
            line["ratio"] = round(statistics.median(ratios), 2)
        print(json.dumps(line), flush=True)
    await client.close()


def main() -> int:
    """Both modes; JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.http_client", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    nginx = find_tools()["nginx"]
    server_core, load_core = two_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="turnpike-bench-")))
        folder.chmod(0o755)  # nginx, started by root, reads the answers as another user
        with pinned(load_core):
            port = stack.enter_context(static_upstream(nginx, folder / "upstream"))
        stack.enter_context(pinned(server_core))
        for mode in ANSWERS:
            uvloop.run(_compare(port, mode, options.seconds, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
