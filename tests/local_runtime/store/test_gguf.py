"""GGUF headers: good ones are read, lying ones are refused before native code sees them."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_runtime.store.gguf import GgufError, read_header
from tests.local_runtime.calls import smollm_path


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str, type_id: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_id) + value


def tensor(
    name: str = "t", shape: tuple[int, ...] = (32, 2), type_id: int = 8, offset: int = 0
) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", type_id, offset)


ARCHITECTURE = entry("general.architecture", 8, text("llama"))
CONTEXT = entry("llama.context_length", 4, struct.pack("<I", 8192))
TEMPLATE = entry("tokenizer.chat_template", 8, text("{{ messages }}"))
TOKENS = entry("tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b"))


def file_bytes(
    *,
    entries: tuple[bytes, ...] = (ARCHITECTURE, CONTEXT, TEMPLATE, TOKENS),
    tensors: tuple[bytes, ...] = (tensor(),),
    data: int = 68,
    version: int = 3,
    tensor_count: int | None = None,
) -> bytes:
    count = len(tensors) if tensor_count is None else tensor_count
    head = b"GGUF" + struct.pack("<IQQ", version, count, len(entries))
    head += b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


def read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    read_header(path)


def test_real_file() -> None:
    header = read_header(smollm_path())
    assert header.architecture == "llama"
    assert header.context_length == 8192
    assert header.chat_template is not None and "<|im_start|>" in header.chat_template
    assert header.tensor_count == 272


def test_made_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(file_bytes())
    header = read_header(path)
    assert (header.version, header.context_length, header.tensor_count) == (3, 8192, 1)
    assert header.chat_template == "{{ messages }}"


def test_every_cut_is_refused(tmp_path: Path) -> None:
    whole = file_bytes()
    for length in range(len(whole)):
        with pytest.raises(GgufError):
            read(tmp_path, whole[:length])


HUGE = struct.pack("<Q", 2**63)
LIES = {
    "magic": b"GGML" + file_bytes()[4:],
    "version": file_bytes(version=1),
    "big-endian": b"GGUF" + struct.pack(">I", 3) + file_bytes()[8:],
    "too many tensors": file_bytes(tensor_count=2**40),
    "a string longer than the file": file_bytes(
        entries=(ARCHITECTURE, text("k") + struct.pack("<I", 8) + struct.pack("<Q", 10**6))
    ),
    "an endless string": file_bytes(
        entries=(ARCHITECTURE, text("k") + struct.pack("<I", 8) + HUGE)
    ),
    "an endless array": file_bytes(
        entries=(ARCHITECTURE, entry("k", 9, struct.pack("<I", 4) + HUGE))
    ),
    "nested arrays": file_bytes(
        entries=(ARCHITECTURE, entry("k", 9, struct.pack("<IQ", 9, 1) * 4))
    ),
    "unknown type": file_bytes(entries=(ARCHITECTURE, entry("k", 77, b"\0" * 8))),
    "the same key twice": file_bytes(entries=(ARCHITECTURE, CONTEXT, CONTEXT)),
    "no architecture": file_bytes(entries=(CONTEXT,)),
    "invalid UTF-8": file_bytes(entries=(ARCHITECTURE, entry("k", 8, text(b"\xff\xfe")))),
    "one part of many": file_bytes(
        entries=(ARCHITECTURE, entry("split.count", 2, struct.pack("<H", 3)))
    ),
    "alignment": file_bytes(
        entries=(ARCHITECTURE, entry("general.alignment", 4, struct.pack("<I", 33)))
    ),
    "no dimensions": file_bytes(tensors=(tensor(shape=()),)),
    "five dimensions": file_bytes(tensors=(tensor(shape=(32, 1, 1, 1, 1)),)),
    "a product that overflows": file_bytes(tensors=(tensor(shape=(2**32, 2**31, 2)),)),
    "a dimension of zero": file_bytes(tensors=(tensor(shape=(32, 0)),)),
    "half a block": file_bytes(tensors=(tensor(shape=(33, 2)),)),
    "unknown tensor type": file_bytes(tensors=(tensor(type_id=99),)),
    "an offset past the end": file_bytes(tensors=(tensor(offset=2**62),)),
    "an odd offset": file_bytes(tensors=(tensor(offset=1),)),
    "data past the end": file_bytes(data=67),
    "two tensors at one place": file_bytes(tensors=(tensor("a"), tensor("b")), data=200),
    "the same tensor twice": file_bytes(tensors=(tensor(), tensor(offset=96)), data=200),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(tmp_path: Path, lie: str) -> None:
    with pytest.raises(GgufError):
        read(tmp_path, LIES[lie])


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_damage_is_refused_or_harmless(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    """Whatever the bytes: read, or refused with GgufError; nothing else, and quickly."""
    content = bytearray(file_bytes())
    for at, value in edits:
        content[at % len(content)] = value
    try:
        read(tmp_path, bytes(content))
    except GgufError as error:
        assert str(error).startswith("model.gguf: ")
