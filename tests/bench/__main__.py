"""``make bench``: measured figures as JSON lines on stdout, one object a line.

``python -m tests.bench [gateway] [local] [ledger] [--seconds N] [--rounds N]``
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench import gateway, local
from tests.bench.machine import ToolMissing, describe, pinned, two_cores

PARTS = ("gateway", "local", "ledger")


def main() -> int:
    """Run the parts asked for, all by default. Exit 1 where one could not run or was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=int, default=8, help="per run of wrk")
    parser.add_argument("--rounds", type=int, default=3, help="per figure")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    _print({"bench": "machine", **describe()})
    wrong = False
    for part in options.parts or PARTS:
        try:
            for line in _lines(part, options.seconds, options.rounds):
                _print(line)
                wrong = wrong or bool(line.get("errors")) or line.get("rows_agree") is False
        except (ToolMissing, RuntimeError, subprocess.SubprocessError) as problem:
            print(f"{part}: {problem}", file=sys.stderr)
            wrong = True
    return int(wrong)


def _lines(part: str, seconds: int, rounds: int) -> Iterator[dict[str, object]]:
    if part == "gateway":
        yield from gateway.measure(seconds, rounds)
    elif part == "local":
        yield from local.measure(rounds)
    else:
        yield from _ledger()


def _ledger() -> Iterator[dict[str, object]]:
    """The ledger alone, on one core as beside the gateway; a process of its own."""
    command = [sys.executable, "-m", "tests.bench.ledger"]
    with pinned(two_cores()[0]):
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=600,
            cwd=Path(__file__).parents[2],
        )
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            yield {"bench": "ledger", **json.loads(line)}


def _print(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
