"""Where a model computes, and how precisely: found out by computing with it.

32-bit floats on the processor are what everything is held against. Sixteen bits are tried on an
accelerator, and on processors with matrix units for them (without those they are several times
slower), and taken where they are faster by far and say the same.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from local_runtime.engines.torch_tasks.network import Network

WORTH = 1.2  # so many times as fast as 32 bits, or they stay
SAME = 0.999  # cosine to what 32 bits say
_ROUNDS = 3
_EVEN_ENOUGH = 1.0  # texts up to twice as long go together where each call costs more than padding


class Choice(NamedTuple):
    """``token_ns`` is what a token of a full batch costs."""

    network: Network
    token_ns: int

    @property
    def on_device(self) -> bool:
        """Whether it is elsewhere than on the processor."""
        return str(self.network.device) != "cpu"


def choose(network: Network, sample: list[list[int]], *, accelerate: bool) -> Choice:
    """The fastest of what is here, of ``network`` (on the processor, 32 bits) and its likes.

    ``sample`` are texts as token ids to try it with.
    """
    seconds = [0] * len(sample)
    right = network.run(sample, seconds)
    best = Choice(network, _token_ns(network, sample))
    for device, dtype in _others(accelerate=accelerate):
        try:
            other = network.moved(device, dtype, 0.0 if device == "cpu" else _EVEN_ENOUGH)
            said = other.run(sample, seconds)
        except RuntimeError:  # too little memory there, or a driver that cannot
            continue
        if not _alike(right, said):
            continue
        found = Choice(other, _token_ns(other, sample))
        if found.token_ns * WORTH <= best.token_ns:
            best = found
    return best


def _others(*, accelerate: bool) -> Iterator[tuple[str, Any]]:
    if has_matrix_units():
        yield "cpu", torch.bfloat16
    if accelerate and torch.cuda.is_available():
        yield "cuda", torch.float32
        if torch.cuda.is_bf16_supported():
            yield "cuda", torch.bfloat16
    if accelerate and torch.backends.mps.is_available():
        yield "mps", torch.float32


def has_matrix_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies matrices of bfloat16 by itself (Intel's AMX)."""
    if sys.platform != "linux":
        return False
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "amx_bf16" in flags.split()


def _token_ns(network: Network, sample: list[list[int]]) -> int:
    """The quickest of some rounds: whatever disturbs only makes slower."""
    seconds = [0] * len(sample)
    took = []
    for _ in range(_ROUNDS):
        begun_ns = time.monotonic_ns()
        network.run(sample, seconds)  # its result is on the host, so it is done
        took.append(time.monotonic_ns() - begun_ns)
    return max(1, min(took) // sum(map(len, sample)))


def _alike(one: Any, other: Any) -> bool:
    if one.shape[1] == 1:  # scores
        return bool((one.sigmoid() - other.sigmoid()).abs().max() < 1 - SAME)
    return bool(torch.cosine_similarity(one, other, dim=1).min() > SAME)
