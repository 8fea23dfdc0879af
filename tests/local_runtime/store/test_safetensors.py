"""Headers of safetensors: right ones are read, lying ones refused."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_runtime.store.safetensors import SafetensorsError, read_safetensors

GOOD = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "none": {"dtype": "I64", "shape": [0, 9], "data_offsets": [32, 32]},
}


def content(header: Any = GOOD, data: int = 32, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (length if length is not None else len(text)).to_bytes(8, "little") + text + bytes(data)


def read(tmp_path: Path, data: bytes) -> int:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    return read_safetensors(path).elements


def test_a_right_one(tmp_path: Path) -> None:
    assert read(tmp_path, content()) == 10


def entry(**changed: Any) -> dict[str, Any]:
    return {"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8], **changed}}


LIES = {
    "empty": b"",
    "no room for a length": b"\1\0",
    "a header longer than the file": content(length=10**9),
    "a header of 2^63 bytes": content(length=2**63),
    "no JSON": content(b"{nonsense", 0),
    "no object": content(b"[]", 0),
    "a name twice": content(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}}', 1),
    "nested": content(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", 0),
    "a hole": content({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, 2),
    "an overlap": content({**entry(), "b": entry()["a"]}, 8),
    "cut short": content(data=31),
    "more than it says": content(data=33),
    "an unknown type": content(entry(dtype="PICKLE"), 8),
    "a wrong size": content(entry(shape=[9]), 8),
    "a negative length": content(entry(shape=[-8]), 8),
    "a product that overflows": content(entry(shape=[2**40, 2**40]), 8),
    "lengths that are no numbers": content(entry(shape=[True]), 8),
    "nine dimensions": content(entry(shape=[1] * 8 + [8]), 8),
    "offsets that are no numbers": content(entry(data_offsets=[0, "8"]), 8),
    "backwards": content(entry(data_offsets=[8, 0]), 8),
    "something else in it": content(entry(code="import os"), 8),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(tmp_path: Path, lie: str) -> None:
    with pytest.raises(SafetensorsError, match=r"model\.safetensors: "):
        read(tmp_path, LIES[lie])


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_is_refused_or_harmless(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    damaged = bytearray(content())
    for at, value in edits:
        damaged[at % len(damaged)] = value
    with contextlib.suppress(SafetensorsError):
        read(tmp_path, bytes(damaged))
