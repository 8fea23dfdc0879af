"""Requests per second through Turnpike, beside nginx's ``proxy_pass``, in the same run.

Everything is on: a real key, a durable ledger (a hold before and a settlement after every call), a
usage row per call. The server under test (nginx's proxy or Turnpike) has one core to itself; wrk
and the static upstream have another.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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

CONFIG = """
[server]
port = 0
log_level = "warning"

[routing]
probes = false

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

    def load(self, base: str, key: str, mode: str, seconds: int) -> Load:
        """One run."""
        url = f"{base}/v1/chat/completions"
        body = chat_body(f"bench/{mode}", stream=mode == "stream")
        with pinned(self.load_core):
            return run_wrk(
                self.tools["wrk"], url, key=key, body=body, seconds=seconds, folder=self.folder
            )

    def in_turn(self, targets: dict[str, tuple[str, str]], mode: str) -> dict[str, list[Load]]:
        """A warm-up of each target (its URL and key), then the rounds, one target after the other
        in each: a machine that is slower for a while is so for all of them.
        """
        body = chat_body(f"bench/{mode}", stream=mode == "stream")
        runs: dict[str, list[Load]] = {}
        for name, (base, key) in targets.items():
            _check_answer(f"{base}/v1/chat/completions", key, body, mode)
            runs[name] = [self.load(base, key, mode, WARM_UP_SECONDS)]
        for _ in range(self.rounds):
            for name, (base, key) in targets.items():
                runs[name].append(self.load(base, key, mode, self.seconds))
        return runs


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
    with ExitStack() as stack:
        with pinned(stage.server_core):
            port = stack.enter_context(
                proxy(stage.tools["nginx"], stage.folder / f"proxy-{mode}", stage.upstream)
            )
            turnpike = stack.enter_context(_turnpike(stage, f"data-{mode}"))
            unbilled = stack.enter_context(
                _turnpike(stage, f"unbilled-{mode}", program="tests.bench.unbilled")
            )
        runs = stage.in_turn(
            {
                "upstream": (f"http://127.0.0.1:{stage.upstream}/{mode}", "none"),
                "proxy_pass": (f"http://127.0.0.1:{port}/{mode}", "none"),
                "turnpike": (turnpike.base_url, turnpike.user("bench", "bench")),
                "turnpike without billing": (unbilled.base_url, unbilled.user("bench", "bench")),
            },
            mode,
        )
        through = runs["turnpike"]
        rows = _rows(turnpike, at_least=1 + sum(run.requests for run in through))
    for target in ("upstream", "proxy_pass", "turnpike without billing"):
        yield _line(mode, target, runs[target])
    line = _line(mode, "turnpike", through)
    line["ratio_to_unbilled"] = _ratio(through, runs["turnpike without billing"])
    line["ratio_to_proxy_pass"] = _ratio(through, runs["proxy_pass"])
    line["p99_ms_added"] = round(_middle(through).p99_ms - _middle(runs["upstream"]).p99_ms, 2)
    yield line | _agree(rows, through)


@contextmanager
def _turnpike(stage: Stage, name: str, program: str = "app") -> Iterator[RunningAppliance]:
    config = CONFIG.format(port=stage.upstream)
    with appliance(stage.folder / name, config, program=program) as running:
        yield running


def _ratio(ours: list[Load], theirs: list[Load]) -> float:
    """The median over the rounds of what both did in one; the first run is the warm-up."""
    pairs = zip(ours[1:], theirs[1:], strict=True)
    return round(statistics.median(a.requests_per_s / b.requests_per_s for a, b in pairs), 4)


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
