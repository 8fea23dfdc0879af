"""Requests per second through Turnpike, beside nginx's ``proxy_pass``, in the same run.

Everything is on: a real key, a durable ledger (a hold before and a settlement after every call), a
usage row per call. The server under test (nginx's proxy or Turnpike) has one core to itself; wrk
and the static upstream have another.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from tests.appliance import RunningAppliance, appliance
from tests.bench.load import CONNECTIONS, Load, chat_body, run_wrk
from tests.bench.machine import find_tools, pinned, two_cores
from tests.bench.nginx import CHUNKS, proxy, static_upstream

WARM_UP_SECONDS = 2
SETTLE_SECONDS_MAX = 20.0

_CONFIG = """
[server]
port = 0
log_level = "warning"

[tiers.bench]
monthly_credit_usd = "100000000"
overage = "stop"

[[providers]]
id = "whole"
plugin = "openai_compatible"
base_url = "http://127.0.0.1:{port}/whole/v1"
[[providers.models]]
id = "bench/whole"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}

[[providers]]
id = "stream"
plugin = "openai_compatible"
base_url = "http://127.0.0.1:{port}/stream/v1"
[[providers.models]]
id = "bench/stream"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where the load runs: tools, folder, the upstream's port, the two cores, and for how long."""

    tools: dict[str, str]
    folder: Path
    upstream: int
    server_core: set[int]
    load_core: set[int]
    seconds: int
    rounds: int

    def load(self, base: str, key: str, mode: str) -> list[Load]:
        """A warm-up and the rounds."""
        url = f"{base}/v1/chat/completions"
        body = chat_body(f"bench/{mode}", stream=mode == "stream")
        _check_answer(url, key, body, mode)
        lengths = [WARM_UP_SECONDS, *[self.seconds] * self.rounds]
        with pinned(self.load_core):
            return [
                run_wrk(
                    self.tools["wrk"], url, key=key, body=body, seconds=length, folder=self.folder
                )
                for length in lengths
            ]


def measure(seconds: int, rounds: int) -> Iterator[dict[str, object]]:
    """One line per mode and target, of the median round. Raises ToolMissing."""
    tools = find_tools()
    server_core, load_core = two_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="turnpike-bench-")))
        folder.chmod(0o755)  # nginx, started by root, reads the answers as another user
        with pinned(load_core):
            upstream = stack.enter_context(static_upstream(tools["nginx"], folder / "upstream"))
        stage = Stage(
            tools=tools,
            folder=folder,
            upstream=upstream,
            server_core=server_core,
            load_core=load_core,
            seconds=seconds,
            rounds=rounds,
        )
        for mode in ("whole", "stream"):
            yield from _measure_mode(stage, mode)


def _measure_mode(stage: Stage, mode: str) -> Iterator[dict[str, object]]:
    static = stage.load(f"http://127.0.0.1:{stage.upstream}/{mode}", "none", mode)
    yield _line(mode, "upstream", static)
    with ExitStack() as stack:
        with pinned(stage.server_core):
            port = stack.enter_context(
                proxy(stage.tools["nginx"], stage.folder / f"proxy-{mode}", stage.upstream)
            )
        proxied = stage.load(f"http://127.0.0.1:{port}/{mode}", "none", mode)
    yield _line(mode, "proxy_pass", proxied)
    with ExitStack() as stack:
        with pinned(stage.server_core):
            turnpike = stack.enter_context(
                appliance(stage.folder / f"data-{mode}", _CONFIG.format(port=stage.upstream))
            )
        through = stage.load(turnpike.base_url, turnpike.user("bench", "bench"), mode)
        rows = _rows(turnpike, at_least=1 + sum(run.requests for run in through))
    with ExitStack() as stack:
        with pinned(stage.server_core):
            unbilled = stack.enter_context(
                appliance(
                    stage.folder / f"unbilled-{mode}",
                    _CONFIG.format(port=stage.upstream),
                    program="tests.bench.unbilled",
                )
            )
        free = stage.load(unbilled.base_url, unbilled.user("bench", "bench"), mode)
    yield _line(mode, "turnpike without billing", free)
    line = _line(mode, "turnpike", through)
    line["ratio_to_unbilled"] = round(
        _middle(through).requests_per_s / _middle(free).requests_per_s, 3
    )
    ratio = _middle(through).requests_per_s / _middle(proxied).requests_per_s
    line["ratio_to_proxy_pass"] = round(ratio, 4)
    line["p99_ms_added"] = round(_middle(through).p99_ms - _middle(static).p99_ms, 2)
    yield line | _agree(rows, through)


def _agree(rows: int, runs: list[Load]) -> dict[str, object]:
    """Whether every request has its usage row: wrk leaves up to 64 unfinished at each run's end."""
    requests = 1 + sum(run.requests for run in runs)
    unfinished_max = CONNECTIONS * len(runs)
    return {
        "requests": requests,
        "usage_rows": rows,
        "rows_agree": requests <= rows <= requests + unfinished_max,
    }


def _rows(turnpike: RunningAppliance, at_least: int) -> int:
    """Usage rows, once the calls that wrk left have been settled too."""
    give_up = time.monotonic() + SETTLE_SECONDS_MAX
    before = -1
    while time.monotonic() < give_up:
        rows = sum(int(line["calls"]) for line in turnpike.usage("user"))
        if rows == before and rows >= at_least:
            return rows
        before = rows
        time.sleep(0.5)
    return before


def _check_answer(url: str, key: str, body: str, mode: str) -> None:
    """Every target must give the same whole answer before it is worth timing."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    reply = httpx.post(url, content=body, headers=headers, timeout=30, trust_env=False)
    good = reply.status_code == 200
    if mode == "stream":
        good = good and reply.text.count('"finish_reason":') >= CHUNKS and "[DONE]" in reply.text
    else:
        good = good and reply.json()["choices"][0]["finish_reason"] == "stop"
    if not good:
        raise RuntimeError(f"{url} answered {reply.status_code}: {reply.text[:500]}")


def _middle(runs: list[Load]) -> Load:
    """The round with the median rate; the first run is the warm-up."""
    measured = sorted(runs[1:], key=lambda run: run.requests_per_s)
    return measured[len(measured) // 2]


def _line(mode: str, target: str, runs: list[Load]) -> dict[str, object]:
    return {
        "bench": "gateway",
        "mode": mode,
        "target": target,
        "connections": CONNECTIONS,
        **_middle(runs).figures(),
        "errors": sum(run.errors for run in runs),
    }
