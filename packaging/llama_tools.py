"""llama.cpp's own programs, for the benches: what our engine is compared with, built like ours.

``python packaging/llama_tools.py`` builds llama-server, llama-batched-bench and llama-quantize from
the sdist that ``locks/llama.txt`` pins, with the flags of the llama-cpp-python in ``.venv`` and the
same compilers, and prints the folder that they lie in. They are kept in the user's cache folder; a
second run finds them there. ``--cuda`` builds them for NVIDIA's GPUs.
"""

import argparse
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import toolchain
from children import ChildFailed
from llama_cmake import Builder, KeptFiles, cmake_flags, file_name
from llama_wheel import cache_folder, recipe
from progress import Display
from stamp import Stamp

PROGRAMS = ("llama-server", "llama-batched-bench", "llama-quantize")
CUDA = ("GGML_CUDA=ON",)


def programs(root: Path, display: Display, *, cuda: bool) -> Path:
    """The folder of the programs; built first where they are not there. Raises Missing."""
    locks, venv = root / "packaging" / "locks", root / ".venv"
    variant = Stamp(venv).done("variant") or "portable"
    gcc = toolchain.cxx_is_gcc()
    made_by = recipe(locks / "llama.txt", variant, toolchain.compilers(), gcc=gcc)
    if cuda:
        made_by = replace(made_by, flags=(*made_by.flags, *CUDA))
    kept = KeptFiles(cache_folder(), map(file_name, PROGRAMS))
    if found := kept.find(made_by):
        return found
    toolchain.try_compilers()
    display.plan(2)
    kept.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Not in /tmp, which may be small or closed to programs.
    with tempfile.TemporaryDirectory(dir=kept.folder) as work:
        builder = Builder(locks, venv, Path(work), display)
        what, flags = "llama-server and llama-batched-bench", cmake_flags(made_by, Path(work))
        built = builder.build(what, builder.fetch(), Path(work, "build"), flags, PROGRAMS)
        return kept.keep(built, made_by)


def main() -> int:
    """Print the folder on standard output; progress and errors go to standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="for NVIDIA's GPUs")
    options = parser.parse_args()
    try:
        print(programs(Path(__file__).parents[1], Display(sys.stderr), cuda=options.cuda))
    except toolchain.Missing as missing:
        print(f"\n{missing}", file=sys.stderr)
        return 1
    except ChildFailed as failed:
        last = "\n".join(re.sub(r"\s+$", "", line) for line in failed.tail)
        print(f"\n{failed}. Its last lines:\n{last}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
