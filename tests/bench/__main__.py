"""``make bench``: measured figures as JSON lines on stdout, one object a line.

``python -m tests.bench [gateway] [local] [ledger] [routing] [steady] [usage] [scale] [--seconds N]
[--rounds N] [--full]``, by default the first three. ``python -m tests.bench.local --help`` has more
for the second.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench import gateway, local, steady
from tests.bench.machine import ToolMissing, describe, pinned, two_cores

BY_DEFAULT = ("gateway", "local", "ledger")
PARTS = (*BY_DEFAULT, "routing", "steady", "usage", "scale")


def main() -> int:
    """Run the parts asked for, or the quick ones. Exit 1 where one could not run or was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=int, default=8, help="per run of wrk")
    parser.add_argument("--rounds", type=int, default=3, help="per figure")
    parser.add_argument("--full", action="store_true", help="usage and scale at ten million calls")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    _print({"bench": "machine", **describe()})
    wrong = False
    for part in options.parts or BY_DEFAULT:
        try:
            for line in _lines(part, options.seconds, options.rounds, options.full):
                _print(line)
                wrong = wrong or bool(line.get("errors")) or line.get("rows_agree") is False
        except (ToolMissing, RuntimeError, subprocess.SubprocessError) as problem:
            print(f"{part}: {problem}", file=sys.stderr)
            wrong = True
    return int(wrong)


def _lines(part: str, seconds: int, rounds: int, full: bool) -> Iterator[dict[str, object]]:
    if part == "gateway":
        yield from gateway.measure(seconds, rounds)
    elif part == "local":
        yield from local.measure(rounds)
    elif part == "ledger":
        yield from _module("ledger", timeout_s=600)
    elif part == "steady":
        yield from steady.measure()
    elif part == "routing":
        yield from _module("routing", timeout_s=600)
    elif part == "usage":
        yield from _module("usage", "10000000" if full else "1000000", timeout_s=3600)
    else:
        options = ["--rounds", str(rounds), *(["--full"] if full else [])]
        yield from _module("scale", *options, timeout_s=7200)


def _module(name: str, *arguments: str, timeout_s: int) -> Iterator[dict[str, object]]:
    """A bench of its own, on one core as beside the gateway; a process of its own."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    with pinned(two_cores()[0]):
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=timeout_s,
            cwd=Path(__file__).parents[2],
        )
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            yield {"bench": name, **json.loads(line)}


def _print(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
