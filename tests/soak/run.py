"""One soak: a real server, its providers and its clients, and what must hold at the end."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.appliance import RunningAppliance, appliance
from tests.journeys.ledger_file import LedgerFile
from tests.local_runtime.calls import smollm_path
from tests.soak.crowd import LOCAL_MODEL, Client, Crowd, Shares
from tests.soak.providers import Sellers, open_sellers
from tests.soak.watch import EVERY_S, Sample, quiet, sample, slope_per_min

PROGRESS_EVERY_S = 30.0
QUIET_S = 8.0  # longer than idle connections to providers are kept
# A provider that tells its costs later is asked each minute; then nothing may be left.
PATIENCE_S = 200.0
SLOPE_MIB_PER_MIN_MAX = 1.0
# Of a line through fewer minutes nothing can be read: caches are still being filled.
SLOPE_MINUTES_MIN = 5.0
STRAY_MAX = 2
WAL_MIB_MAX = 64.0
_LOCAL = f"""
[local]
memory_bytes_max = 1_000_000_000
[[local.models]]
id = "{LOCAL_MODEL}"
source = "file:{{path}}"
context_length = 1024
parallel = 4
threads = 1
"""


@dataclass(frozen=True)
class Plan:
    """``program``: a binary, or the module that is run. ``warm_up_s`` comes before the begin that
    the end is compared with, and ``fill_calls`` before everything: quick calls, so that the
    database's cache has its full size."""

    minutes: float = 10.0
    rate: float = 50.0
    seed: int = 0
    program: str | Path = "app"
    shares: Shares = field(default_factory=Shares)
    warm_up_s: float = 20.0
    fill_calls: int = 100_000


@dataclass
class Outcome:
    """What was measured, and what is not as it should be: empty where all is well."""

    wrong: list[str]
    told: dict[str, Any]


async def soak(folder: Path, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Run it, with the data directory in ``folder``."""
    chance = random.Random(plan.seed)
    async with AsyncExitStack() as stack:
        sellers = await stack.enter_async_context(open_sellers(chance))
        config = sellers.toml() + _LOCAL.format(path=smollm_path())
        tier = '[tiers.poor]\nmonthly_credit_usd = "0.00"\n'
        started = appliance(folder / "data", tier + config, program=plan.program)
        running = await asyncio.to_thread(started.__enter__)
        stack.push_async_callback(asyncio.to_thread, started.__exit__, None, None, None)
        clients, poor = await asyncio.to_thread(_clients, running)
        crowd = Crowd(running.base_url, clients, poor, sellers, chance, plan.shares)
        await crowd.fill(plan.fill_calls)
        await crowd.come(plan.warm_up_s, plan.rate)
        await crowd.gone()
        begin = await quiet(running, QUIET_S, patience_s=PATIENCE_S, at_s=0.0)
        say(f"begin: {json.dumps(begin.told())}")
        samples = await _under_load(running, crowd, plan, say)
        await crowd.gone()
        end = await quiet(
            running, QUIET_S, patience_s=PATIENCE_S, at_s=samples[-1].at_s if samples else 0.0
        )
        say(f"end: {json.dumps(end.told())}")
        sellers.close_books()
        connections = sellers.connections_open
        wrong = await asyncio.to_thread(_money, running, sellers)
        stopped = await asyncio.to_thread(running.stop)
    if stopped != 0:
        wrong.append(f"the server ended with status {stopped}")
    log = (running.data_dir / "serve.log").read_text()
    if "Traceback" in log:
        wrong.append(f"a fault of the application in {running.data_dir / 'serve.log'}")
    if sellers.unended or connections:
        wrong.append(f"{connections} connections to providers are open, {sellers.unended} busy")
    slope = slope_per_min([*_loaded(samples), end])
    wrong += _held(begin, end, samples)
    if plan.minutes >= SLOPE_MINUTES_MIN and slope >= SLOPE_MIB_PER_MIN_MAX:
        wrong.append(f"memory grows by {slope:.2f} MiB a minute")
    wrong += [f"strange answer: {each}" for each in crowd.strange[:20]]
    told = {
        "minutes": plan.minutes,
        "rate": plan.rate,
        "seed": plan.seed,
        "begin": begin.told(),
        "end": end.told(),
        "rss_mib_max": round(max((each.rss_mib for each in samples), default=0.0), 1),
        "rss_mib_per_minute": round(slope, 3),
        "wal_mib_max": round(max((each.wal_mib for each in samples), default=0.0), 1),
        "heard": dict(crowd.heard.most_common()),
        "faults_met": sum(sellers.met.values()),
        "kinds_of_faults_met": len(sellers.met),
        "charged_nano_usd": {name: _sum(book) for name, book in sellers.books.items()},
        "charged_calls": {name: book.total() for name, book in sellers.books.items()},
        "wrong": wrong,
    }
    return Outcome(wrong, told)


def _clients(running: RunningAppliance) -> tuple[list[Client], Client]:
    """Users who pay alone, members whose org pays where they say so, two keys of one user."""
    clients = [Client(running.user(name, "pro")) for name in ("ann", "bob", "cid", "dora")]
    clients.append(Client(running.key("ann")))
    running.cli("orgs", "add", "acme", "--tier", "team", "--admin", "owner")
    for name in ("cid", "dora"):
        running.cli("orgs", "members", "add", "acme", name)
    clients += [Client(clients[at].key, bill_to="acme") for at in (2, 3)]
    return clients, Client(running.user("pia", "poor"))


async def _under_load(
    running: RunningAppliance, crowd: Crowd, plan: Plan, say: Callable[[str], None]
) -> list[Sample]:
    loop = asyncio.get_running_loop()
    begun = said = loop.time()
    coming = asyncio.ensure_future(crowd.come(plan.minutes * 60, plan.rate))
    samples: list[Sample] = []
    while not coming.done():
        await asyncio.wait({coming}, timeout=EVERY_S)
        samples.append(await sample(running, loop.time() - begun))
        if loop.time() - said >= PROGRESS_EVERY_S:
            said = loop.time()
            heard = dict(crowd.heard.most_common(8))
            say(f"{json.dumps(samples[-1].told())} waiting: {crowd.under_way}, heard: {heard}")
    await coming
    return samples


def _loaded(samples: list[Sample]) -> list[Sample]:
    """Those of the second half: before, caches are being filled."""
    return samples[len(samples) // 2 :]


def _held(begin: Sample, end: Sample, samples: list[Sample]) -> list[str]:
    wrong = []
    for name in ("fds", "threads", "tasks", "children"):
        before, after = getattr(begin, name), getattr(end, name)
        if abs(after - before) > STRAY_MAX:
            wrong.append(f"{name}: {before} at the begin, {after} at the end")
    for name in ("calls_running", "holds_open", "local_running"):
        if getattr(end, name):
            wrong.append(f"{name} is {getattr(end, name)} at the end")
    wal = max((each.wal_mib for each in [*samples, end]), default=0.0)
    if wal > WAL_MIB_MAX:
        wrong.append(f"the write-ahead log was {wal:.0f} MiB")
    return wrong


def _money(running: RunningAppliance, sellers: Sellers) -> list[str]:
    """The ledger adds up, and says of each provider what the provider's own book says."""
    wrong: list[str] = []
    audit = json.loads(running.cli("ledger", "audit", "--json"))
    wrong += [f"audit: {problem}" for problem in audit["problems"]]
    if audit["house"].get("forgiven"):
        wrong.append(f"{audit['house']['forgiven']} nano-USD were forgiven")
    charged: dict[str, Counter[tuple[str, int]]] = {name: Counter() for name in sellers.books}
    for row in LedgerFile(running.data_dir).calls().values():
        if row.provider in charged and row.cost:
            charged[row.provider][row.model, row.cost] += 1
    for name, book in sellers.books.items():
        if _sum(book) != _sum(charged[name]):
            wrong.append(f"{name} charged {_sum(book)}, the ledger says {_sum(charged[name])}")
        missing, made_up = book - charged[name], charged[name] - book
        if missing or made_up:
            wrong.append(f"{name}: not in the ledger {dict(missing)}, not theirs {dict(made_up)}")
    return wrong


def _sum(book: Counter[tuple[str, int]]) -> int:
    return sum(amount * times for (_, amount), times in book.items())
