"""``make soak``: hours in the life of a server, in minutes. Exit 1 where something is not as it
should be; the JSON on the last line says what.

``python -m tests.soak --minutes 10 --rate 50 [--binary FILE] [--seed N] [--folder DIR]``
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path

from tests.soak.run import Plan, soak


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--binary", type=Path, help="in place of the source")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--folder", type=Path, help="kept, for looking at it afterwards")
    options = parser.parse_args()
    program = "app" if options.binary is None else options.binary.resolve()
    plan = Plan(options.minutes, options.rate, options.seed, program)
    print(f"seed {plan.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="turnpike-soak-") as folder:
        outcome = asyncio.run(soak(options.folder or Path(folder), plan, _say))
    print(json.dumps(outcome.told))
    return int(bool(outcome.wrong))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
