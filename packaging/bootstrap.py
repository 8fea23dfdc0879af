"""From a fresh clone to a working ``.venv``: what ``make setup`` runs. Standard library only.

``.venv`` is a pure function of the locks in ``packaging/locks`` and of the Python it was made
with. A stamp inside it says which step was done from which lock, so that a second run has nothing
to do; a step that was interrupted, or a lock that changed, makes ``.venv`` anew (seconds: pip
keeps the downloads, and the built llama-cpp-python is kept in the user's cache folder).
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}.")

import argparse
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

from build import EDITIONS, Wanted, build
from children import LOG_TAIL_LINES, ChildFailed
from installer import Installer
from llama_accelerator import ACCELERATORS
from progress import Display
from relock import relock
from toolchain import Missing

ROOT = Path(__file__).resolve().parent.parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "command",
        choices=["setup", "dev", "torch", "fast", "portable", "lock", "binary"],
        help="setup: all that `turnpike serve` needs. dev: and the tools for tests and lint. "
        "torch: and what serves models of safetensors. "
        "fast: llama.cpp built anew for this very processor. portable: and back again. "
        "lock: the lock files anew from pyproject.toml. "
        "binary: one file, and an archive of a folder, to carry elsewhere.",
    )
    parser.add_argument(
        "--this-python",
        action="store_true",
        help="make .venv anew where it was made with another Python than the one running this",
    )
    parser.add_argument(
        "--editions",
        default="core starter",
        help=f"which binaries to make, of: {' '.join(EDITIONS)} (default: core starter)",
    )
    parser.add_argument(
        "--accelerator",
        default="",
        help=f"a kind of graphics card to make them for, of: {' '.join(ACCELERATORS)}",
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing if nothing is to be done")
    return parser.parse_args()


def _on_sigterm(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _run(wanted: argparse.Namespace, display: Display) -> None:
    installer = Installer(ROOT, display)
    if wanted.command == "lock":
        installer.bring_up_to_date(locking=True)
        relock(ROOT, installer.venv, display)
        return
    if wanted.command == "binary":
        _make_binaries(wanted, display)
        return
    variant = {"fast": "native", "portable": "portable"}.get(wanted.command)
    did_something = installer.bring_up_to_date(
        dev=wanted.command == "dev",
        torch=wanted.command == "torch",
        variant=variant,
        this_python=wanted.this_python,
    )
    if not did_something and not wanted.quiet:
        display.say("Set-up is complete: nothing to do.")


def _make_binaries(wanted: argparse.Namespace, display: Display) -> None:
    """The editions without torch from one environment and folder, the one with it from others."""
    editions = wanted.editions.replace(",", " ").split()
    if unknown := [each for each in editions if each not in EDITIONS]:
        raise Missing(f"There is no edition {unknown[0]!r}. There are: {', '.join(EDITIONS)}.")
    if wanted.accelerator and wanted.accelerator not in ACCELERATORS:
        raise Missing(
            f"There is no accelerator {wanted.accelerator!r}. There are: {', '.join(ACCELERATORS)};"
            " on a Mac, Metal is in it without asking."
        )
    for name, torch in (("binary", False), ("binary-torch", True)):
        chosen = [each for each in editions if (each == "torch") is torch]
        if not chosen:
            continue
        folder = ROOT / "build" / name
        builder = Installer(ROOT, display, folder / "venv")
        builder.bring_up_to_date(
            binary=True, torch=torch, variant="everywhere", this_python=wanted.this_python
        )
        build(ROOT, folder, builder.venv, display, Wanted(chosen, wanted.accelerator))


def main() -> int:
    """Exit status: 0 done, 1 failed, 130 interrupted."""
    wanted = _arguments()
    signal.signal(signal.SIGTERM, _on_sigterm)
    display = Display()
    try:
        _run(wanted, display)
    except Missing as missing:
        display.say(f"\n{missing}")
        return 1
    except ChildFailed as failed:
        display.fail("failed")
        log = ROOT / ".venv" / "setup.log"
        display.say(f"\nThe last {LOG_TAIL_LINES} lines of {log}:\n")
        for line in failed.tail:
            display.say(f"    {line}")
        display.say(f"\n{failed}. The whole log: {log}")
        return 1
    except KeyboardInterrupt:
        display.fail("interrupted; run the same command again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
