"""What a gateway adds and keeps when it is not pressed: latency at 20 requests a second, memory
over 200,000 calls, and 5,000 streams that are open at once and say nothing.
"""

import asyncio
import json
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from tests.appliance import RunningAppliance, appliance
from tests.bench.gateway import CONFIG
from tests.bench.load import chat_body, run_wrk
from tests.bench.machine import find_tools, pinned, two_cores
from tests.bench.nginx import static_upstream
from tests.upstreams.serving import Asked, Play, Reply, Serving

LATENCY_SECONDS = 20
REQUESTS_PER_SECOND = 20
MEMORY_CALLS = 200_000
MEMORY_LOTS = 10
STREAMS = 5_000
CONNECTING_AT_ONCE = 200

_HANGING = """
[server]
port = 0
log_level = "warning"

[routing]
probes = false

[tiers.bench]
monthly_credit_usd = "100000000"
overage = "stop"

[[providers]]
id = "slow"
plugin = "openai_compatible"
base_url = "{origin}/v1"
idle_seconds_max = 600.0
[[providers.models]]
id = "bench/slow"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
"""


def measure() -> Iterator[dict[str, object]]:
    """One line each. Raises ToolMissing."""
    tools = find_tools()
    server_core, load_core = two_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="turnpike-bench-")))
        folder.chmod(0o755)
        with pinned(load_core):
            port = stack.enter_context(static_upstream(tools["nginx"], folder / "upstream"))
        with pinned(server_core):
            running = stack.enter_context(appliance(folder / "data", CONFIG.format(port=port)))
        key = running.user("bench", "bench")
        with pinned(load_core):
            yield {"bench": "steady", **_latency(f"http://127.0.0.1:{port}/whole", running, key)}
            yield {"bench": "steady", **_memory(tools["wrk"], folder, running, key)}
    yield {"bench": "steady", **asyncio.run(_idle(server_core, load_core))}


def _latency(direct: str, running: RunningAppliance, key: str) -> dict[str, object]:
    """Milliseconds of the same request, straight to the upstream and through, turn by turn."""
    body = chat_body("bench/whole", stream=False)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    took: dict[str, list[float]] = {"direct": [], "through": []}
    with httpx.Client(trust_env=False, headers=headers) as client:
        for number in range(LATENCY_SECONDS * REQUESTS_PER_SECOND * 2):
            name, base = (("direct", direct), ("through", running.base_url))[number % 2]
            began = time.perf_counter()
            client.post(f"{base}/v1/chat/completions", content=body).raise_for_status()
            spent = time.perf_counter() - began
            took[name].append(spent * 1000)
            time.sleep(max(0.0, 0.5 / REQUESTS_PER_SECOND - spent))
    p50 = {name: statistics.median(each) for name, each in took.items()}
    p99 = {name: sorted(each)[int(len(each) * 0.99)] for name, each in took.items()}
    return {
        "what": "latency",
        "requests_per_s": REQUESTS_PER_SECOND,
        "direct_p50_ms": round(p50["direct"], 2),
        "through_p50_ms": round(p50["through"], 2),
        "added_p50_ms": round(p50["through"] - p50["direct"], 2),
        "added_p99_ms": round(p99["through"] - p99["direct"], 2),
    }


def _memory(wrk: str, folder: Path, running: RunningAppliance, key: str) -> dict[str, object]:
    """Resident MiB after each tenth of the calls; the first tenth is the warm-up."""
    url, body = f"{running.base_url}/v1/chat/completions", chat_body("bench/whole", stream=False)
    calls, sizes = 0, []
    while calls < MEMORY_CALLS:
        lot = 0
        while lot < MEMORY_CALLS // MEMORY_LOTS:
            lot += run_wrk(wrk, url, key=key, body=body, seconds=3, folder=folder).requests
        calls += lot
        sizes.append(_resident_mib(running))
    return {
        "what": "memory",
        "calls": calls,
        "resident_mib": sizes,
        "growth_after_warm_up": round(sizes[-1] / sizes[0], 3),
    }


def _resident_mib(running: RunningAppliance) -> float:
    for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError("the server's memory cannot be read")


async def _idle(server_core: set[int], load_core: set[int]) -> dict[str, object]:
    """Open all streams, see a first word on each, ask something else, and let all end."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    finish = asyncio.Event()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="turnpike-bench-")))
        async with Serving(_slowly(finish)) as upstream:
            with pinned(server_core):
                running = await asyncio.to_thread(
                    stack.enter_context,
                    appliance(folder / "data", _HANGING.format(origin=upstream.origin)),
                )
            with pinned(load_core):
                key = await asyncio.to_thread(running.user, "bench", "bench")
                before = _resident_mib(running)
                gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
                began = time.perf_counter()
                port = int(running.base_url.rpartition(":")[2])
                opened = [_open(port, key, gate) for _ in range(STREAMS)]
                streams = await asyncio.gather(*opened)
                opening_s = time.perf_counter() - began
                during = _resident_mib(running)
                models = await asyncio.to_thread(_ask_ms, running, key)
                finish.set()
                whole = sum(await asyncio.gather(*(_rest(each) for each in streams)))
            rows = await asyncio.to_thread(_rows, running)
    return {
        "what": "idle streams",
        "streams": STREAMS,
        "opened_in_s": round(opening_s, 1),
        "kib_per_stream": round((during - before) * 1024 / STREAMS, 1),
        "models_ms_meanwhile": round(models, 1),
        "whole_answers": whole,
        "rows_agree": rows == STREAMS,
    }


def _slowly(finish: asyncio.Event) -> Play:
    """A provider that says one word and the rest when it is told."""

    async def play(_asked: Asked, reply: Reply) -> None:
        def chunk(text: str, reason: str | None) -> dict[str, object]:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
            return {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}

        await reply.begin()
        await reply.event(chunk("word", None))
        await finish.wait()
        await reply.event(chunk(" last", "stop"))
        await reply.event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
        await reply.event("[DONE]")
        await reply.end()

    return play


Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _open(port: int, key: str, gate: asyncio.Semaphore) -> Pipe:
    body = json.dumps(
        {"model": "bench/slow", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    )
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((head + body).encode())
        await reader.readuntil(b'"word"')
    return reader, writer


async def _rest(pipe: Pipe) -> bool:
    reader, writer = pipe
    rest = await reader.read()
    writer.close()
    return b"[DONE]" in rest


def _ask_ms(running: RunningAppliance, key: str) -> float:
    began = time.perf_counter()
    headers = {"authorization": f"Bearer {key}"}
    url = f"{running.base_url}/v1/models"
    httpx.get(url, headers=headers, trust_env=False, timeout=30).raise_for_status()
    return (time.perf_counter() - began) * 1000


def _rows(running: RunningAppliance) -> int:
    return sum(int(line["calls"]) for line in running.usage("user"))
