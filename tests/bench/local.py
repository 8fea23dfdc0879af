"""Tokens per second and time to the first token of the starter model, through the HTTP API.

The same prompt is then run at the level of the engine, in a process of its own, so that what HTTP,
the ledger and the child process cost is the difference of two lines of one run.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from tests.appliance import RunningAppliance, appliance
from tests.bench.talk import MODEL, PROMPT, STREAMS, TOKENS_MAX, Answer, best, figures

LOAD_SECONDS_MAX = 120.0
_CONFIG = """
[server]
port = 0
log_level = "warning"

[tiers.bench]
monthly_credit_usd = "1000000"
"""


def measure(rounds: int) -> Iterator[dict[str, object]]:
    """One line per number of streams and level; the best of the rounds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="turnpike-bench-")))
        turnpike = stack.enter_context(appliance(folder / "data", _CONFIG))
        key = turnpike.user("bench", "bench")
        _wait_for_model(turnpike, key)
        for streams in STREAMS:
            base_url = turnpike.base_url
            runs = [asyncio.run(_one_round(base_url, key, streams)) for _ in range(rounds)]
            yield {"bench": "local", "level": "http", "model": MODEL, **best(runs)}
    engine = subprocess.run(
        [sys.executable, "-m", "tests.bench.engine", str(rounds)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if engine.returncode != 0:
        raise RuntimeError(f"tests.bench.engine failed: {engine.stderr[-2000:]}")
    for line in engine.stdout.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _wait_for_model(turnpike: RunningAppliance, key: str) -> None:
    """The first answer: loading is not what is measured."""
    give_up = time.monotonic() + LOAD_SECONDS_MAX
    while True:
        reply = turnpike.chat(key, MODEL, "Hello", max_tokens=8)
        if reply.status_code == 200:
            return
        if reply.status_code != 503 or time.monotonic() > give_up:
            raise RuntimeError(f"the model does not answer: {reply.status_code} {reply.text}")
        time.sleep(0.5)


async def _one_round(base_url: str, key: str, streams: int) -> dict[str, float]:
    limits = httpx.Limits(max_connections=streams)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=base_url, headers=headers, limits=limits, timeout=300, trust_env=False
    ) as http:
        began = time.perf_counter()
        answers = await asyncio.gather(*(_one_answer(http, began) for _ in range(streams)))
    return figures(list(answers))


async def _one_answer(http: httpx.AsyncClient, began: float) -> Answer:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": TOKENS_MAX,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first_s = None
    tokens = 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            raise RuntimeError(f"{reply.status_code}: {(await reply.aread())[:500]!r}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if first_s is None and any(c["delta"].get("content") for c in chunk["choices"]):
                first_s = time.perf_counter() - began
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    if first_s is None or not tokens:
        raise RuntimeError("a stream without text, or without usage")
    return Answer(first_s=first_s, end_s=time.perf_counter() - began, tokens=tokens)
