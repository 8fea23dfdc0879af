"""What is chosen where nothing is configured, and what a model will take: laws, and real loads."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.engines.llama.cache_types import CACHE_TYPES
from local_runtime.engines.llama.footprint import (
    MARGIN_BYTES,
    MARGIN_SHARE,
    PROCESS_BYTES,
    Footprint,
    footprint,
    footprint_of,
)
from local_runtime.engines.llama.shape import shape_of
from local_runtime.engines.llama.sizing import (
    FLASH_AUTO,
    FLASH_OFF,
    FLASH_ON,
    KEPT_BYTES,
    Free,
    context_length_of,
    size_of,
)
from local_runtime.store.gguf import GgufHeader, Tensor, read_header
from tests.local_runtime.calls import smollm_path

MIB = 1 << 20
SMOLLM = read_header(smollm_path())


def spec(**fields: object) -> EngineSpec:
    return EngineSpec(engine="llama", **fields)  # type: ignore[arg-type]


def made(
    architecture: Any = "llama",
    *,
    layers: int = 4,
    arrays: Any = None,  # by name: a tuple with a number for each layer
    **numbers: int,
) -> GgufHeader:
    """A header of a model with a megabyte for each layer, and one before and one behind."""
    values = {
        "block_count": layers, "embedding_length": 512, "feed_forward_length": 1024,
        "context_length": 4096, "vocab_size": 1000, "attention.head_count": 8,
    } | numbers  # fmt: skip
    names = ["token_embd", "output", *(f"blk.{layer}.ffn_up" for layer in range(layers))]
    return GgufHeader(
        version=3,
        architecture=architecture,
        tensor_count=len(names),
        file_bytes=0,
        metadata={f"{architecture}.{name}": value for name, value in values.items()},
        arrays={f"{architecture}.{name}": value for name, value in (arrays or {}).items()},
        tensors=tuple(Tensor(f"{name}.weight", 0, (512, 512), MIB) for name in names),
    )


headers = st.builds(
    lambda layers, heads, kv_heads, length, vocabulary, trained, window: made(
        layers=layers,
        **{
            "attention.head_count": heads,
            "attention.head_count_kv": min(heads, kv_heads),
            "attention.key_length": length,
            "attention.value_length": length,
            "vocab_size": vocabulary,
            "context_length": trained,
            "attention.sliding_window": window,
        },
    ),
    st.integers(1, 80),
    st.sampled_from([1, 8, 32]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([64, 96, 128]),
    st.integers(100, 260_000),
    st.integers(64, 200_000),
    st.sampled_from([0, 1024]),
)
specs = st.builds(
    spec,
    sequences_max=st.integers(1, 32),
    cache_type=st.sampled_from(sorted(CACHE_TYPES)),
    flash_attention=st.sampled_from([None, True]),
    batch_tokens=st.none() | st.integers(32, 2048),
)


SHORT = made(
    layers=28,
    vocab_size=100,
    context_length=440,
    **dict.fromkeys(("attention.head_count", "attention.head_count_kv"), 1),
    **dict.fromkeys(("attention.key_length", "attention.value_length"), 128),
)


# Rounded down for each cell, what 8448 cells take in buffers was 6 KiB too little.
@example(SHORT, spec(sequences_max=32, cache_type="iq4_nl", batch_tokens=388), 77)
@given(headers, specs, st.integers(0, 80 * 1024))
def test_what_is_fitted_to_a_device_fits(header: GgufHeader, asked: EngineSpec, mib: int) -> None:
    free = Free(device_bytes=mib * MIB)
    size = size_of(header, asked, free)
    found = footprint_of(shape_of(header), size, sequences=asked.sequences_max)
    assert found.device_bytes <= free.device_bytes
    assert size.cells >= size.context_length
    more = Free(device_bytes=2 * free.device_bytes)
    assert size_of(header, asked, more).gpu_layers >= size.gpu_layers


@given(headers, specs, st.integers(0, 64 * 1024))
def test_what_is_chosen_for_the_host_leaves_room(
    header: GgufHeader, asked: EngineSpec, mib: int
) -> None:
    free = Free(host_bytes=mib * MIB)
    try:
        size = size_of(header, asked, free)
    except EngineLoadError as error:
        assert "Lower context_length" in str(error)
        return
    found = footprint_of(shape_of(header), size, sequences=asked.sequences_max)
    assert found.cache_bytes <= mib * MIB
    longer = context_length_of(header, asked, Free(host_bytes=2 * mib * MIB))
    assert longer >= size.context_length == context_length_of(header, asked, free)
    assert size.context_length <= (header.context_length or 0)


@given(headers, specs, st.integers(0, 100))
def test_layers_only_move(header: GgufHeader, asked: EngineSpec, layers: int) -> None:
    """Host and device share the weights and the cache between them, whatever the split."""
    whole = footprint(header, asked)
    split = footprint(header, asked, gpu_layers=layers)
    shape = shape_of(header)
    assert split.weight_bytes == whole.weight_bytes == (shape.everything + 1) * MIB
    on_device = shape.device_weight_bytes(layers)
    assert shape.host_weight_bytes(layers) + on_device == whole.weight_bytes
    assert whole.device_bytes == 0
    assert (split.device_bytes > 0) == (layers > 0)


def test_defaults_need_no_tuning() -> None:
    size = size_of(SMOLLM, spec(sequences_max=8), Free(host_bytes=16 << 30))
    assert (size.context_length, size.gpu_layers, size.flash_attn_type) == (8192, 0, FLASH_AUTO)
    large = made(layers=32, **{"context_length": 131_072, "attention.head_count_kv": 8})
    assert size_of(large, spec(), Free(host_bytes=64 << 30)).context_length == 4096
    long = made(layers=1, **{"context_length": 131_072, "attention.head_count_kv": 1})
    assert size_of(long, spec(), Free(host_bytes=64 << 30)).context_length == 32_768


def test_too_little_memory_is_told() -> None:
    with pytest.raises(EngineLoadError, match=r"8192 tokens .* 180 MiB .*q8_0"):
        size_of(SMOLLM, spec(context_length=8192), Free(host_bytes=100 * MIB))
    assert context_length_of(SMOLLM, spec(), Free(host_bytes=100 * MIB)) == 2048


def test_cache_types_and_flash_attention() -> None:
    auto = size_of(SMOLLM, spec(cache_type="q8_0"))
    assert (auto.type_k, auto.type_v, auto.flash_attn_type) == (8, 8, FLASH_ON)
    assert size_of(SMOLLM, spec(flash_attention=False)).flash_attn_type == FLASH_OFF
    with pytest.raises(EngineLoadError, match="flash_attention = false"):
        size_of(SMOLLM, spec(cache_type="q8_0", flash_attention=False))
    with pytest.raises(EngineLoadError, match=r"q3_k.*f16"):
        size_of(SMOLLM, spec(cache_type="q3_k"))
    with pytest.raises(EngineLoadError, match=r"blocks of 32.*80"):
        size_of(made(**{"attention.key_length": 80}), spec(cache_type="q4_0"))
    with pytest.raises(EngineLoadError, match="trained for 8192"):
        size_of(SMOLLM, spec(context_length=8193))


def test_gpu_layers_as_configured() -> None:
    header = made(layers=4)
    for asked, given_ in ((0, 0), (3, 3), (999, 5), (-1, 5)):
        assert size_of(header, spec(gpu_layers=asked)).gpu_layers == given_
    assert size_of(header, spec(), Free(device_bytes=8 << 30)).gpu_layers == 5
    assert size_of(header, spec(), Free(device_bytes=3 * MIB)).gpu_layers == 0


@pytest.mark.parametrize(
    ("header", "bytes_per_cell", "state_bytes"),
    [
        # Every number from the rules in llama-hparams.cpp and models/*.cpp.
        (made(**{"attention.head_count_kv": 2}), 4 * 2 * (2 * 64) * 2, 0),
        (made(), 4 * 2 * (8 * 64) * 2, 0),
        (made(arrays={"attention.head_count_kv": (1, 2, 3, 4)}), 10 * 64 * 2 * 2, 0),
        (made("bert"), 0, 0),
        (made("deepseek2", **{"attention.head_count_kv": 1, "attention.key_length": 576,
                              "attention.key_length_mla": 192}), 4 * 576 * 2, 0),
        (made("gemma4", **{"attention.shared_kv_layers": 3}), 1 * 2 * 512 * 2, 0),
        (made("mamba", **{"attention.head_count": 0, "ssm.conv_kernel": 4, "ssm.inner_size": 128,
                          "ssm.state_size": 16}), 0, 4 * 4 * (3 * 128 + 16 * 128)),
        (made("lfm2", arrays={"attention.head_count_kv": (0, 2, 0, 2)},
              **{"shortconv.l_cache": 3}), 2 * 2 * (2 * 64) * 2, 2 * 4 * 2 * 512),
        (made("qwen3next", **{"attention.head_count_kv": 2, "ssm.conv_kernel": 4,
                              "ssm.inner_size": 64, "ssm.state_size": 16, "ssm.group_count": 1}),
         1 * 2 * (2 * 64) * 2, 3 * 4 * (3 * (64 + 2 * 16) + 16 * 64)),
    ],
)  # fmt: skip
def test_what_architectures_keep(header: GgufHeader, bytes_per_cell: int, state_bytes: int) -> None:
    found = footprint(header, spec(sequences_max=1, context_length=256))
    assert found.cache_bytes == 256 * bytes_per_cell + state_bytes


LOAD = """
import ctypes, sys
import llama_cpp, msgspec
from local_runtime.engines.contract import EngineSpec
from local_runtime.engines.llama import devices, native, sizing
from local_runtime.store.gguf import read_header
from pathlib import Path

spec = msgspec.json.decode(sys.argv[1], type=EngineSpec)
native.start_backend()
@llama_cpp.llama_log_callback
def log(level, text, data):
    sys.stdout.write(text.decode("utf-8", "replace"))
llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
before = devices.memory_now()
size = sizing.size_of(read_header(Path(spec.path)), spec)
model = native.Model(spec.path, lambda fraction: None)
context = native.Context(model, size, sequences=spec.sequences_max)
context.add([7] * 128, 0, 0, outputs=1)
assert context.decode() == 0
print("GREW", devices.memory_now() - before, flush=True)
"""


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cache_type": "q8_0"},
        {"cache_type": "q4_0", "context_length": 2048},
        {"flash_attention": False, "context_length": 2048},
        {"sequences_max": 2, "context_length": 1024, "batch_tokens": 128},
    ],
    ids=lambda fields: ",".join(f"{k}={v}" for k, v in fields.items()) or "defaults",
)
def test_a_real_load_takes_what_was_said(fields: dict[str, object]) -> None:
    """Weights and cache to the byte by llama.cpp's own count, memory within the stated margin."""
    asked = spec(path=str(smollm_path()), **fields)
    said = footprint(SMOLLM, asked)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, msgspec.json.encode(asked).decode()],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[4],
    )
    assert _mib(done.stdout, r"CPU_Mapped model buffer size = +([\d.]+)") == _round(
        said.weight_bytes
    )
    assert _mib(done.stdout, r"CPU KV buffer size = +([\d.]+)") == _round(said.cache_bytes)
    compute = _mib(done.stdout, r"CPU compute buffer size = +([\d.]+)") * MIB
    assert compute <= said.compute_bytes <= compute * 1.25 + 2 * MIB
    grew = int(re.findall(r"GREW (\d+)", done.stdout)[0])
    _within_margin(said, grew)


def _within_margin(said: Footprint, grew: int) -> None:
    # The process was there before, and nothing is kept of calls yet.
    expected = said.host_bytes - PROCESS_BYTES - KEPT_BYTES
    assert grew <= expected + MARGIN_BYTES
    # Compute buffers are taken as they are needed, and most of a short prompt's are not.
    held = expected - said.compute_bytes
    assert held <= grew * (1 + MARGIN_SHARE) + MARGIN_BYTES


def _mib(text: str, pattern: str) -> float:
    return float(re.findall(pattern, text)[-1])


def _round(count: int) -> float:
    return round(count / MIB, 2)
