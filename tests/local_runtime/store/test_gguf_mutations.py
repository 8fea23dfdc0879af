"""Mutations of the starter model's header: refused, or harmless, and never a crash.

What the reader does not refuse is loaded by a real engine in a real child process, and asked for a
few tokens. That may end in a load error or in an answer, but not in a signal. 60 by default;
``TURNPIKE_GGUF_MUTATIONS=1000`` makes it do more, ``TURNPIKE_SEED`` others.
"""

import asyncio
import os
import random
import shutil
import struct
from collections import Counter
from pathlib import Path

import pytest

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.placement.child import ChildHost
from local_runtime.placement.contract import HostDied
from local_runtime.store.gguf import GgufError, read_header
from tests.local_runtime.calls import collect, engine_request, smollm_path
from tests.local_runtime.store.mutating import Mutation, anatomy_of, header_of, mutations

COUNT = int(os.environ.get("TURNPIKE_GGUF_MUTATIONS", "60"))
SEED = int(os.environ.get("TURNPIKE_SEED", "20261"))
SECONDS_MAX = 60.0


class Patched:
    """One copy of the model, whose header is written over for each mutation: the rest stays."""

    def __init__(self, folder: Path) -> None:
        self.header = header_of(smollm_path())
        self._whole = folder / "mutated.gguf"
        self._cut = folder / "cut.gguf"
        shutil.copyfile(smollm_path(), self._whole)

    def file_of(self, mutation: Mutation) -> Path:
        changed = mutation.apply(self.header)
        if mutation.length is not None:
            self._cut.write_bytes(changed)
            return self._cut
        with self._whole.open("r+b") as file:
            file.write(changed)
        return self._whole


async def outcome(path: Path) -> str:
    """What becomes of a file that the reader did not refuse."""
    spec = EngineSpec(
        engine="llama", path=str(path), context_length=256, threads=1, sequences_max=2
    )
    host = ChildHost(spec)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            try:
                await host.start(lambda _fraction: None)
            except EngineLoadError:
                return "load error"
            await collect(host, engine_request("Hi, ünï 你好 12\n\n x", max_tokens=3))
            return "answered" if host.alive else f"crash: {await host.died()}"
    except HostDied as error:
        return f"crash: {error}"
    finally:
        await host.close()


@pytest.mark.slow
@pytest.mark.timeout(60 + 4 * COUNT)
async def test_mutations_of_a_real_header_crash_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGML_NO_BACKTRACE", "1")
    patched = Patched(tmp_path)
    assert await outcome(patched.file_of(Mutation("none"))) == "answered"
    seen: Counter[str] = Counter()
    crashes = []
    for mutation in mutations(patched.header, COUNT, SEED):
        path = patched.file_of(mutation)
        try:
            read_header(path)
        except GgufError as error:
            assert str(error).startswith(path.name)
            seen["refused"] += 1
            continue
        end = await outcome(path)
        seen[end.partition(":")[0]] += 1
        if end.startswith("crash"):
            crashes.append(f"{mutation.what}: {end}")
    print(dict(seen))
    assert crashes == []
    assert seen["refused"] and seen["answered"]


@pytest.mark.parametrize(
    "what", ["epsilon -1.0", "epsilon nan", "layers 0", "layers 4272765933", "a token twice"]
)
def test_what_llama_cpp_ends_the_process_over_is_refused(tmp_path: Path, what: str) -> None:
    """Each of these got past an earlier reader, and aborted llama.cpp (found by the test above)."""
    patched = Patched(tmp_path)
    with pytest.raises(GgufError):
        read_header(patched.file_of(by_hand(patched.header)[what]))


def by_hand(header: bytes) -> dict[str, Mutation]:
    anatomy = anatomy_of(header, random.Random(1))
    epsilon = next(f for f in anatomy.of("float") if f.name.endswith("layer_norm_rms_epsilon"))
    layers = next(f for f in anatomy.of("value") if f.name == "llama.block_count")
    tokens = [f for f in anatomy.of("item") if f.name == "tokenizer.ggml.tokens"]
    one, other = next(
        (a, b) for a in tokens for b in tokens if a.size == b.size > 0 and a.at != b.at
    )
    twice = ((one.at, header[other.at : other.at + other.size]),)
    edits = {f"epsilon {v}": (epsilon, struct.pack("<f", v)) for v in (-1.0, float("nan"))}
    edits |= {f"layers {v}": (layers, struct.pack("<I", v)) for v in (0, 4272765933)}
    made = {what: Mutation(what, ((at.at, value),)) for what, (at, value) in edits.items()}
    return made | {"a token twice": Mutation("a token twice", twice)}
