"""What a call costs the ledger as users, keys and past calls grow: JSON lines, ratios included.

Makes a database with ten thousand past calls and one with a million, with ``--full`` one with ten
million too (ten minutes and 8 GB, of disk and of memory to keep it at hand), in a folder that it
removes; every ten calls have their user and key. Then rounds, each of which takes a fresh process
to every database:

``first``    calls of a thousand callers that the process has not met: everything is looked up.
``regular``  calls of the same callers, over and over.
``anyone``   calls of callers drawn from all users.

``python -m tests.bench.scale [--full] [--rounds N] [--calls N]``
"""

import argparse
import asyncio
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from random import Random
from typing import Any

from app.billing.standing import AccountStandings
from app.billing.tiers import Tiers
from app.config import Config
from app.identity.keys import KeyRing, KeyStore
from app.identity.users import UserStore
from app.ids import new_call_id
from app.ledger.audit import audit_file
from app.ledger.entries import HoldRequest, Outcome, UsageRow
from app.ledger.sqlite import SqliteLedger
from app.storage.sqlite import SqliteDatabase
from tests.bench.past import (
    COST_NANO_USD,
    HOLD_NANO_USD,
    INPUT_TOKENS,
    MODEL,
    OUTPUT_TOKENS,
    PROVIDER,
    BenchClock,
    generate,
    key_id,
    known_keys,
    user_id,
)

TASKS = 64
SIZES = (10_000, 1_000_000)
SIZES_FULL = (*SIZES, 10_000_000)
REGULARS = 1_000
KEYS_TRIED = 300
PAGE_BYTES = 4096
_HOLD_MS = 1_800_000

Figures = dict[str, float]


async def call(ledger: SqliteLedger, number: int, now_ms: int) -> None:
    """One request's work for the ledger: a hold, then its settlement with the usage row."""
    call_id, user, key = new_call_id(), user_id(number), key_id(number)
    hold = await ledger.place_hold(
        HoldRequest(
            call_id=call_id,
            user_id=user,
            key_id=key,
            offers=((PROVIDER, MODEL),),
            amount_nano_usd=HOLD_NANO_USD,
            floor_nano_usd=HOLD_NANO_USD,
            admitted_at_ms=now_ms,
            expires_at_ms=now_ms + _HOLD_MS,
        )
    )
    usage = UsageRow(
        call_id=call_id,
        at_ms=now_ms,
        user_id=user,
        key_id=key,
        payer_id=hold.payer_id,
        model=MODEL,
        provider=PROVIDER,
        outcome=Outcome.COMPLETED,
        streamed=False,
        attempts=1,
        input_tokens=INPUT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        latency_ms=12,
    )
    await ledger.settle_hold(call_id, COST_NANO_USD, usage)


async def run_calls(ledger: SqliteLedger, clock: BenchClock, callers: list[int]) -> Figures:
    """One call for each of ``callers``, so many at a time as there are tasks."""
    took: list[float] = []
    left = iter(callers)

    async def client() -> None:
        for number in left:
            began = time.perf_counter()
            await call(ledger, number, clock.now_ms())
            took.append(time.perf_counter() - began)

    read, written = _transferred()
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(TASKS)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    read_after, written_after = _transferred()
    took.sort()
    return {
        "cpu_us_per_call": cpu / len(callers) * 1e6,
        "calls_per_second": len(callers) / seconds,
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
        "pages_read_per_call": (read_after - read) / len(callers) / PAGE_BYTES,
        "pages_written_per_call": (written_after - written) / len(callers) / PAGE_BYTES,
    }


def _transferred() -> tuple[int, int]:
    """Bytes that this process has read and written, from the system's cache or not.

    Zeros where the system does not say.
    """
    try:
        lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0
    found = dict(line.split(": ") for line in lines)
    return int(found["rchar"]), int(found["wchar"])


async def authenticate(database: SqliteDatabase, clock: BenchClock, keys: list[str]) -> Figures:
    """Each key for the first time, one after the other; the note of its use is waited for."""
    store = KeyStore(database, clock)
    ring = KeyRing(database, store, UserStore(database, clock, ("free", "pro")), clock)
    took = []
    for key in keys:
        began = time.perf_counter()
        await ring.authenticate(key)
        took.append(time.perf_counter() - began)
        await ring.close()
    return {"authenticate_us": statistics.median(took) * 1e6}


async def one_round(path: Path, users: int, calls: int, seed: int) -> dict[str, Figures]:
    """A process's life on one database, with the objects of a server."""
    draw = Random(seed)
    clock = BenchClock()
    began = time.perf_counter()
    database = SqliteDatabase(path, clock)
    ledger = SqliteLedger(database, clock, AccountStandings(Tiers(Config())))
    await database.open()
    figures: dict[str, Figures] = {"start": {"open_ms": (time.perf_counter() - began) * 1e3}}
    try:
        # As `turnpike serve` does.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        regulars = draw.sample(range(users), min(users, REGULARS))
        figures["first"] = await run_calls(ledger, clock, regulars)
        figures["regular"] = await run_calls(ledger, clock, draw.choices(regulars, k=calls))
        await run_calls(ledger, clock, draw.choices(range(users), k=calls // 2))
        figures["anyone"] = await run_calls(ledger, clock, draw.choices(range(users), k=calls))
        keys = draw.sample(known_keys(path), KEYS_TRIED)
        figures["authentication"] = await authenticate(database, clock, keys)
    finally:
        await database.close()
    return figures


def measure(
    sizes: tuple[int, ...], rounds: int, calls: int, same_users: int | None
) -> Iterator[dict[str, object]]:
    """Generate, go round, and compare with the smallest. Raises RuntimeError for a ledger that the
    audit finds wrong, before the calls or after them."""
    with tempfile.TemporaryDirectory(prefix="turnpike-bench-") as folder:
        paths = {size: Path(folder, f"{size}.sqlite3") for size in sizes}
        users: dict[int, int] = {}
        for size, path in paths.items():
            began = time.perf_counter()
            users[size] = generate(path, size, same_users)
            yield {
                "what": "database",
                "past_calls": size,
                "users": users[size],
                "mebibytes": path.stat().st_size >> 20,
                "made_in_s": round(time.perf_counter() - began),
            }
        smallest = paths[sizes[0]]
        _check(smallest)
        found: dict[int, list[dict[str, Figures]]] = {size: [] for size in sizes}
        for number in range(rounds):
            for size, path in paths.items():
                # The smallest would soon be no more so small.
                used = _copy(path) if path is smallest else path
                found[size].append(_round(used, users[size], calls, number))
        _check(_copied(smallest))
        yield from compare(found)


def compare(found: dict[int, list[dict[str, Figures]]]) -> Iterator[dict[str, object]]:
    """Medians over the rounds, each beside the smallest size's."""
    smallest = found[min(found)]
    for what in smallest[0]:
        for size, figures in found.items():
            line: dict[str, object] = {"what": what, "past_calls": size}
            for name in smallest[0][what]:
                median = statistics.median(each[what][name] for each in figures)
                line[name] = round(median) if median >= 1000 else round(median, 2)
                if name.startswith("pages_"):
                    continue
                # Of the same round, since what else the machine does comes and goes.
                ratio = statistics.median(
                    each[what][name] / other[what][name]
                    for each, other in zip(figures, smallest, strict=True)
                )
                line[f"{name}_ratio"] = round(ratio, 2)
            yield line


def _round(path: Path, users: int, calls: int, seed: int) -> dict[str, Figures]:
    """One round in a process of its own, the file in the system's cache."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass
    command = [sys.executable, "-m", "tests.bench.scale", "--round"]
    command += [str(path), str(users), str(calls), str(seed)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
        cwd=Path(__file__).parents[2],
    )
    figures: dict[str, Figures] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _copy(path: Path) -> Path:
    copied = _copied(path)
    copied.parent.mkdir(exist_ok=True)
    for suffix in (path.suffix, ".keys"):
        shutil.copyfile(path.with_suffix(suffix), copied.with_suffix(suffix))
    return copied


def _copied(path: Path) -> Path:
    return path.parent / "copy" / path.name


def _check(path: Path) -> None:
    problems = audit_file(path).problems
    if problems:
        raise RuntimeError(f"the audit of {path.name} found: {problems[0]}")


def main() -> None:
    """Print one JSON line for each figure set; as ``--round``, one round's figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale")
    parser.add_argument("--full", action="store_true", help="ten million past calls too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=4_000, help="per round and kind of caller")
    parser.add_argument(
        "--users", type=int, help="as many for every size, so that only past calls grow"
    )
    parser.add_argument("--round", nargs=4, metavar=("PATH", "USERS", "CALLS", "SEED"))
    options = parser.parse_args()
    if options.round:
        path, users, calls, seed = options.round
        work = one_round(Path(path), int(users), int(calls), int(seed))
        print(json.dumps(_run(work)))
        return
    sizes = SIZES_FULL if options.full else SIZES
    for line in measure(sizes, options.rounds, options.calls, options.users):
        print(json.dumps({"bench": "scale", **line}), flush=True)


def _run(work: Coroutine[Any, Any, dict[str, Figures]]) -> dict[str, Figures]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    figures: dict[str, Figures] = uvloop.run(work)
    return figures


if __name__ == "__main__":
    main()
