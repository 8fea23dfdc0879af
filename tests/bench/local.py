"""The local runtime beside llama.cpp's own server, in one run: same file, threads, context, load.

``python -m tests.bench.local [--model FILE] [--rounds N] [--streams 1,4,8,16] …`` prints JSON
lines; ``make bench`` runs it with what is set here. Within a round everybody has a turn with the
same prompts, in an order that moves on by one from round to round, and a ratio is the median over
rounds of what two of them did in one. A round in which other programs had more than a twentieth of
the machine is done again, twice as many rounds at most. README.md tells how each is started.
"""

import argparse
import asyncio
import json
import shlex
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from app.starter import STARTER_SOURCE
from local_runtime.engines.threads import usable_cores
from local_runtime.store.sources import file_of
from tests.bench import contenders, speed
from tests.bench.contenders import Setting
from tests.bench.machine import describe
from tests.bench.quiet import OTHERS_PERCENT_MAX, others_percent, times
from tests.bench.speed import Figures, Scenario, Target

STREAMS = (1, 4, 8, 16)
STREAMS_GPU = (1, 4, 8, 16, 32, 64)
CONTEXT_LENGTH = 8192
SCENARIOS = ("streams", "prefix", "gap")
REST_S = 0.5
TURNPIKE, ENGINE, SERVER, BATCHED = "turnpike", "engine", "llama_server", "batched_bench"

# Of each scenario the figures that are compared: name in the lines, and name of the ratio.
_COMPARED = {
    "streams": {
        "tokens_per_s": "ratio_to_{}",
        "generation_tokens_per_s": "generation_ratio_to_{}",
    },
    "prefix": {"first_token_ms_p50": "ratio_to_{}", "first_token_ms_max": "worst_ratio_to_{}"},
    "gap": {"gap_ms_p99": "ratio_to_{}", "long_first_token_ms": "long_prompt_ratio_to_{}"},
}


@dataclass
class Round:
    """What everybody did in one round."""

    figures: dict[str, Figures] = field(default_factory=dict)
    others_percent: float = 0.0


class Comparison:
    """The targets that are up, and the rounds over them."""

    def __init__(
        self, targets: Sequence[Target], setting: Setting, programs: Path, rounds: int
    ) -> None:
        self._targets = targets
        self._setting = setting
        self._programs = programs
        self._rounds = rounds

    async def measure(self, scenario: Scenario, seed: str, batched: int = 0) -> list[Round]:
        """The rounds that count; ``batched``: so many streams of llama-batched-bench in each."""
        done: list[Round] = []
        for number in range(2 * self._rounds):
            shift = number % len(self._targets)
            found = Round()
            for target in [*self._targets[shift:], *self._targets[:shift]]:
                await asyncio.sleep(REST_S)
                before = times()
                found.figures[target.name] = await scenario(target, f"{seed}/{number}")
                others = others_percent(before, times())
                found.others_percent = max(found.others_percent, others or 0.0)
            if batched:
                found.figures[BATCHED] = await self._batched(batched, found)
            done.append(found)
            if sum(each.others_percent <= OTHERS_PERCENT_MAX for each in done) >= self._rounds:
                break
        quiet = [each for each in done if each.others_percent <= OTHERS_PERCENT_MAX]
        return quiet or done

    async def _batched(self, streams: int, found: Round) -> Figures:
        """The same work in llama-batched-bench: prompts as long as these were on the average."""
        prompt_tokens = round(found.figures[self._targets[0].name]["prompt_tokens_mean"])
        rows = await asyncio.to_thread(
            contenders.batched_bench,
            *(self._programs, self._setting, [streams], prompt_tokens, speed.TOKENS_MAX),
        )
        row = rows[streams]
        return {
            "tokens_per_s": streams * speed.TOKENS_MAX / row["t"],
            "generation_tokens_per_s": row["speed_tg"],
            "prompt_tokens_mean": prompt_tokens,
        }


def lines(scenario: str, rounds: Sequence[Round], **labels: object) -> Iterator[dict[str, object]]:
    """A line for everybody: medians of what it did, and its ratios to the others' round by round.

    A time to first token and a gap are the better the smaller the ratio, rates the larger.
    """
    for name in rounds[0].figures:
        line: dict[str, object] = {"bench": "local", "scenario": scenario, "target": name, **labels}
        for what in rounds[0].figures[name]:
            line[what] = round(statistics.median(r.figures[name][what] for r in rounds), 1)
        for other in rounds[0].figures:
            if other in {name, TURNPIKE} or name not in {TURNPIKE, ENGINE}:
                continue
            for what, label in _COMPARED[scenario].items():
                if what in rounds[0].figures[other]:
                    pairs = [(r.figures[name][what], r.figures[other][what]) for r in rounds]
                    if all(theirs for _, theirs in pairs):
                        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
                        line[label.format(other)] = round(ratio, 3)
        line["rounds"] = len(rounds)
        line["others_percent_max"] = max(each.others_percent for each in rounds)
        yield line


def measure(rounds: int) -> Iterator[dict[str, object]]:
    """All of it with what is set here. Raises ToolMissing, RuntimeError."""
    yield from _run(_parser().parse_args(["--rounds", str(rounds)]))


def _run(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Lines as they come, out of an event loop of our own."""
    found = _measure(options)
    # Ended from outside, it ends the servers that it started, as at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        while True:
            try:
                yield runner.run(anext(found))  # type: ignore[arg-type]  # a coroutine, typed less
            except StopAsyncIteration:
                return


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """That of uvloop where it is installed: the load generator should take little from others."""
    try:
        from uvloop import Loop
    except ImportError:
        return None
    return Loop


async def _measure(options: argparse.Namespace) -> AsyncIterator[dict[str, object]]:
    counts = options.streams or (STREAMS_GPU if options.gpu else STREAMS)
    setting = Setting(
        model=options.model or file_of(STARTER_SOURCE),
        threads=options.threads or usable_cores(),
        context_length=options.context,
        sequences=max((*counts, speed.GAP_STREAMS + 1)),
        gpu=options.gpu,
    )
    programs = options.programs or contenders.programs(cuda=options.gpu)
    labels = {"model": setting.model.name, "threads": setting.threads}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="turnpike-bench-")))
        targets: list[Target] = []
        if TURNPIKE in options.targets:
            targets.append(stack.enter_context(contenders.gateway(setting, folder / "data")))
        if ENGINE in options.targets:
            targets.append(await stack.enter_async_context(contenders.engine_alone(setting)))
        if SERVER in options.targets:
            log, more = folder / "llama-server.log", shlex.split(options.server_args)
            server = contenders.llama_server(programs, setting, log, SERVER, more)
            targets.append(stack.enter_context(server))
        comparison = Comparison(targets, setting, programs, options.rounds)
        for target in targets:  # caches, lazily made things
            await speed.streams(2, temperature=0.8)(target, "warm-up")
        if "streams" in options.scenarios:
            for count in counts:
                scenario = speed.streams(count, temperature=options.temperature)
                batched = count if BATCHED in options.targets else 0
                rounds = await comparison.measure(scenario, f"streams {count}", batched)
                for line in lines("streams", rounds, streams=count, **labels):
                    yield line
        for name, scenario in (("prefix", speed.shared_prefix), ("gap", speed.long_prompt)):
            if name in options.scenarios:
                for line in lines(name, await comparison.measure(scenario, name), **labels):
                    yield line


def _parser() -> argparse.ArgumentParser:
    def names(allowed: tuple[str, ...]) -> dict[str, object]:
        return {"nargs": "+", "choices": allowed, "default": list(allowed), "metavar": "NAME"}

    parser = argparse.ArgumentParser(prog="python -m tests.bench.local", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="per figure")
    parser.add_argument("--model", type=Path, help="a GGUF file; the starter model without")
    parser.add_argument("--threads", type=int, help="all of the machine's without")
    parser.add_argument("--context", type=int, default=CONTEXT_LENGTH, help="tokens per stream")
    parser.add_argument("--streams", type=_numbers, help="such as 1,4,8,16")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--scenarios", **names(SCENARIOS))  # type: ignore[arg-type]
    parser.add_argument("--targets", **names((TURNPIKE, ENGINE, SERVER, BATCHED)))  # type: ignore[arg-type]
    parser.add_argument("--programs", type=Path, help="a folder with llama.cpp's programs")
    parser.add_argument("--server-args", default="", help="more for llama-server's command line")
    parser.add_argument("--gpu", action="store_true", help="everything on the GPU; 1 to 64 streams")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    print(json.dumps({"bench": "machine", **describe()}), flush=True)
    for each in _run(_parser().parse_args()):
        print(json.dumps(each), flush=True)
    sys.exit(0)
