"""Who is compared: Turnpike through its gateway, its engine alone, and llama.cpp's own programs.

All get the same file, the same number of threads, and a context in which every one of the streams
may have ``context_length`` tokens.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec

from local_runtime.engines.contract import EngineRequest, EngineSpec, Failed, Finished, Piece
from local_runtime.placement.child import ChildHost
from local_runtime.runtime import LocalModelSpec, LocalRuntime
from plugins.chat import ChatRequest
from tests.appliance import RunningAppliance, appliance
from tests.bench.asking import Answer, HttpTarget, Refused
from tests.bench.machine import ToolMissing, free_port

ROOT = Path(__file__).parents[2]
MODEL = "bench/model"
LOAD_SECONDS_MAX = 120.0
BUILD_SECONDS_MAX = 7200.0

_CONFIG = """
[server]
port = 0
log_level = "warning"

[routing]
probes = false

[tiers.bench]
monthly_credit_usd = "1000000"

[[local.models]]
id = "{model}"
source = "file:{path}"
context_length = {context_length}
threads = {threads}
parallel = {sequences}
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for all: ``sequences`` is how many streams may run at once."""

    model: Path
    threads: int
    context_length: int
    sequences: int
    gpu: bool = False


def programs(*, cuda: bool) -> Path:
    """The folder of llama.cpp's programs; the first time they are built. Raises ToolMissing."""
    command = [sys.executable, str(ROOT / "packaging" / "llama_tools.py")]
    done = subprocess.run(
        [*command, *(["--cuda"] if cuda else [])],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=BUILD_SECONDS_MAX,
    )
    if done.returncode != 0:
        raise ToolMissing("llama.cpp's own programs could not be built, see above")
    return Path(done.stdout.strip())


def llama_server_command(folder: Path, setting: Setting, port: int, more: list[str]) -> list[str]:
    """llama-server as it is by default, but for what must be the same.

    Each slot has the whole context (without ``--kv-unified`` they share what ``-c`` says in equal
    parts), flash attention, continuous batching and prompt caching are on by default.
    """
    return [
        *(str(folder / "llama-server"), "-m", str(setting.model), "--jinja"),
        *("--host", "127.0.0.1", "--port", str(port), "--no-webui", "--log-disable"),
        *("-t", str(setting.threads), "-tb", str(setting.threads)),
        *("-np", str(setting.sequences), "-c", str(setting.context_length * setting.sequences)),
        *("-ngl", "999" if setting.gpu else "0"),
        *more,
    ]


@contextmanager
def llama_server(
    folder: Path, setting: Setting, log_path: Path, name: str, more: list[str]
) -> Iterator[HttpTarget]:
    """Started on a free port, ready, and ended by its own id."""
    port = free_port()
    with log_path.open("w") as log:
        process = subprocess.Popen(
            llama_server_command(folder, setting, port, more), stdout=log, stderr=log
        )
    try:
        give_up = time.monotonic() + LOAD_SECONDS_MAX
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"llama-server did not start: {log_path.read_text()[-2000:]}")
            time.sleep(0.1)
        yield HttpTarget(name, port, MODEL)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _healthy(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (
            httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=5).status_code
            == 200
        )
    return False


@contextmanager
def gateway(setting: Setting, folder: Path) -> Iterator[HttpTarget]:
    """A ``turnpike serve`` with a key and a ledger, its model loaded."""
    config = _CONFIG.format(
        model=MODEL,
        path=setting.model,
        context_length=setting.context_length,
        threads=setting.threads,
        sequences=setting.sequences,
    )
    with appliance(folder, config) as running:
        key = running.user("bench", "bench")
        _wait_for_model(running, key)
        yield HttpTarget("turnpike", int(running.base_url.rpartition(":")[2]), MODEL, key)


def _wait_for_model(running: RunningAppliance, key: str) -> None:
    """The first answer: loading is not what is measured."""
    give_up = time.monotonic() + LOAD_SECONDS_MAX
    while True:
        reply = running.chat(key, MODEL, "Hello", max_tokens=8)
        if reply.status_code == 200:
            return
        if reply.status_code != 503 or time.monotonic() > give_up:
            raise RuntimeError(f"the model does not answer: {reply.status_code} {reply.text}")
        time.sleep(0.5)


class EngineTarget:
    """The engine in its child, asked through its host: no HTTP, no gateway, no ledger."""

    name = "engine"

    def __init__(self, host: ChildHost) -> None:
        self._host = host
        self._numbers = count()

    async def ask(
        self,
        chat: dict[str, Any],
        *,
        begun: "asyncio.Future[None] | None" = None,
        enough: asyncio.Event | None = None,
    ) -> Answer:
        """As ``HttpTarget.ask``."""
        request_id = f"bench-{next(self._numbers)}"
        request = msgspec.convert({"model": MODEL, **chat}, ChatRequest)
        answer = Answer(
            sent_s=time.perf_counter(), token_s=[], end_s=0, output_tokens=0, prompt_tokens=0
        )
        stopping = None
        if enough is not None:
            stopping = asyncio.create_task(self._cancel_when(enough, request_id))
        told = self._host.submit(EngineRequest(request_id=request_id, chat=request))
        async for event in (event async for events in told for event in events):
            if isinstance(event, Piece):
                answer.token_s.append(time.perf_counter())
                answer.text += event.text
                if begun is not None and not begun.done():
                    begun.set_result(None)
            elif isinstance(event, Failed):
                raise Refused(f"the engine refused: {event.message} {event.detail}")
            elif isinstance(event, Finished):
                usage = event.usage
                answer.output_tokens = usage.output_tokens
                answer.cached_tokens = usage.cache_read_tokens
                answer.prompt_tokens = usage.input_tokens + usage.cache_read_tokens
        answer.end_s = time.perf_counter()
        if stopping is not None:
            stopping.cancel()
        return answer

    async def _cancel_when(self, enough: asyncio.Event, request_id: str) -> None:
        await enough.wait()
        self._host.cancel(request_id)


def engine_spec(setting: Setting) -> EngineSpec:
    """What the gateway's runtime gives its engine for the same configuration."""
    spec = LocalModelSpec(
        id=MODEL,
        source=f"file:{setting.model}",
        context_length=setting.context_length,
        threads=setting.threads,
        sequences_max=setting.sequences,
    )
    return LocalRuntime([spec]).models[MODEL].engine_spec


@asynccontextmanager
async def engine_alone(setting: Setting) -> AsyncIterator[EngineTarget]:
    """The engine's child, loaded."""
    host = ChildHost(engine_spec(setting))
    try:
        await host.start(lambda _fraction: None)
        yield EngineTarget(host)
    finally:
        await host.close()


def batched_bench(
    folder: Path, setting: Setting, streams: list[int], prompt_tokens: int, output_tokens: int
) -> dict[int, dict[str, float]]:
    """llama-batched-bench's own lines by number of streams: decoding as fast as llama.cpp can,
    without sampling, text, or anybody who asks. ``speed_tg`` is tokens per second once all prompts
    are read, ``t`` the seconds with them.
    """
    cells = max(streams) * -(-(prompt_tokens + output_tokens) // 256) * 256
    done = subprocess.run(
        [
            *(str(folder / "llama-batched-bench"), "-m", str(setting.model)),
            *("-t", str(setting.threads), "-tb", str(setting.threads), "-c", str(cells)),
            *("-npp", str(prompt_tokens), "-ntg", str(output_tokens)),
            *("-npl", ",".join(map(str, streams)), "--output-format", "jsonl"),
            *("-ngl", "999" if setting.gpu else "0"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {int(line["pl"]): line for line in lines}
    if set(found) != set(streams):
        raise RuntimeError(f"llama-batched-bench: {done.stdout[-500:]} {done.stderr[-1500:]}")
    return found
