"""GGUF models as a whole: split ones, and numbers that llama.cpp relies on without checking."""

import struct
from pathlib import Path

import pytest

from local_runtime.engines.contract import EngineSpec
from local_runtime.placement.child import ChildHost
from local_runtime.store.gguf import GgufError, read_header
from tests.local_runtime.calls import collect, engine_request, smollm_path, text_of
from tests.local_runtime.store import gguf_files
from tests.local_runtime.store.gguf_files import entry, text
from tests.local_runtime.store.splitting import split


def u32(key: str, value: int) -> bytes:
    return entry(key, 4, struct.pack("<I", value))


def f32(key: str, value: float) -> bytes:
    return entry(key, 6, struct.pack("<f", value))


def array(key: str, *values: int) -> bytes:
    return entry(key, 9, struct.pack(f"<IQ{len(values)}I", 4, len(values), *values))


def texts(key: str, *values: str) -> bytes:
    return entry(key, 9, struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values)))


RIGHT: dict[str, list[bytes]] = {
    "nothing more": [],
    "heads": [u32("llama.attention.head_count", 9), u32("llama.attention.head_count_kv", 3)],
    "heads for each layer": [array("llama.attention.head_count", 8, 0)],
    "experts": [u32("llama.expert_count", 8), u32("llama.expert_used_count", 2)],
    "no sharing": [u32("llama.attention.head_count", 8), u32("llama.attention.head_count_kv", 0)],
    "tokens": [texts("tokenizer.ggml.tokens", "a", "", "", "b")],
    "rope": [entry("llama.rope.scaling.type", 8, text("yarn")), f32("llama.rope.freq_base", 1e6)],
}
WRONG: dict[str, list[bytes]] = {
    "no width": [u32("llama.embedding_length", 0)],
    "an endless width": [u32("llama.embedding_length", 2**31)],
    "more heads than width": [
        u32("llama.embedding_length", 64), u32("llama.attention.head_count", 65)
    ],
    "heads that do not divide": [
        u32("llama.attention.head_count", 9), u32("llama.attention.head_count_kv", 2)
    ],
    "more layers ahead than layers": [u32("llama.nextn_predict_layers", 9)],
    "too many experts": [u32("llama.expert_count", 2000), u32("llama.expert_used_count", 2)],
    "more experts used than there": [u32("llama.expert_count", 4),
                                     u32("llama.expert_used_count", 5)],
    "experts that nobody uses": [u32("llama.expert_count", 4)],
    "experts used, none there": [u32("llama.expert_used_count", 2)],
    "groups that do not divide": [u32("llama.expert_count", 8), u32("llama.expert_used_count", 2),
                                  u32("llama.expert_group_count", 3)],
    "a negative epsilon": [f32("llama.attention.layer_norm_rms_epsilon", -1.0)],
    "no number": [f32("llama.attention.layer_norm_rms_epsilon", float("nan"))],
    "infinity": [f32("llama.rope.freq_base", float("inf"))],
    "no base": [f32("llama.rope.freq_base", 0.0)],
    "unknown scaling": [entry("llama.rope.scaling.type", 8, text("magic"))],
    "unknown pooling": [u32("llama.pooling_type", 77)],
    "a token twice": [texts("tokenizer.ggml.tokens", "a", "b", "a")],
    "tokens that are numbers": [array("tokenizer.ggml.tokens", 1, 2)],
    "bytes that no token spells": [entry("tokenizer.ggml.model", 8, text("llama")),
                                   texts("tokenizer.ggml.tokens", "a", "b")],
    "too many parts": [entry("split.count", 2, struct.pack("<H", 9999))],
}  # fmt: skip


@pytest.mark.parametrize("what", RIGHT)
def test_right_numbers(tmp_path: Path, what: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_files.whole(64, extra=RIGHT[what]))
    assert read_header(path).architecture == "llama"


@pytest.mark.parametrize("what", WRONG)
def test_wrong_numbers(tmp_path: Path, what: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_files.whole(64, extra=WRONG[what]))
    with pytest.raises(GgufError, match=r"^m\.gguf: "):
        read_header(path)


def written(folder: Path, pieces: list[bytes], name: str = "m") -> list[Path]:
    paths = []
    for number, piece in enumerate(pieces, 1):
        path = folder / f"{name}-{number:05}-of-{len(pieces):05}.gguf"
        path.write_bytes(piece)
        paths.append(path)
    return paths


def test_all_parts_are_one_model(tmp_path: Path) -> None:
    paths = written(tmp_path, gguf_files.parts(["a.weight", "b.weight", "c.weight"]))
    header = read_header(paths[0])
    assert (header.tensor_count, header.file_count) == (3, 3)
    assert header.file_bytes == sum(path.stat().st_size for path in paths)


def test_parts_that_are_not_a_model(tmp_path: Path) -> None:
    pieces = gguf_files.parts(["a.weight", "b.weight", "c.weight"])
    paths = written(tmp_path, pieces)
    with pytest.raises(GgufError, match="not the first"):
        read_header(paths[1])
    paths[2].write_bytes(pieces[1])
    with pytest.raises(GgufError, match="part 1 of 3, by its own words"):
        read_header(paths[0])
    paths[2].unlink()
    with pytest.raises(GgufError, match=r"00003-of-00003\.gguf is missing"):
        read_header(paths[0])
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(pieces[0])
    with pytest.raises(GgufError, match="must be named NAME-00001-of-00003"):
        read_header(alone)


def test_a_damaged_part_is_refused_with_its_name(tmp_path: Path) -> None:
    paths = written(tmp_path, gguf_files.parts(["a.weight", "b.weight"]))
    paths[1].write_bytes(paths[1].read_bytes()[:-40])
    with pytest.raises(GgufError, match=r"^m-00002-of-00002\.gguf: .*past the end"):
        read_header(paths[0])


async def test_a_split_model_answers_like_the_whole_one(tmp_path: Path) -> None:
    """The real model in three files, loaded by the real engine."""
    paths = written(tmp_path, split(smollm_path().read_bytes(), 3))
    assert read_header(paths[0]).tensor_count == read_header(smollm_path()).tensor_count
    answers = []
    for path in (smollm_path(), paths[0]):
        host = ChildHost(EngineSpec(engine="llama", path=str(path), context_length=256, threads=1))
        try:
            await host.start(lambda _fraction: None)
            request = engine_request("Say hello.", max_tokens=8, temperature=0)
            answers.append(text_of(await collect(host, request)))
        finally:
            await host.close()
    assert answers[0] == answers[1] != ""
