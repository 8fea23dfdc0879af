"""The header of a safetensors file, checked before anything else reads the file.

Format: huggingface/safetensors, ``README.md``: eight bytes of length, that much JSON, then the
tensors' data without holes.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from local_runtime.store.nesting import depth_of

HEADER_BYTES_MAX = 100_000_000  # the reference reader's own limit
TENSORS_MAX = 1_000_000
DIMENSIONS_MAX = 8
DEPTH_MAX = 4

# Bits of one element.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class SafetensorsError(Exception):
    """The file is not one that may be loaded; the text says what is wrong with it."""


class SafetensorsHeader(msgspec.Struct, frozen=True):
    """What is known of a file without reading its data."""

    tensor_count: int
    elements: int
    file_bytes: int
    dtypes: dict[str, int]  # elements of each


def read_safetensors(path: Path) -> SafetensorsHeader:
    """Read and check the header. Raises SafetensorsError, OSError."""

    def refuse(reason: str) -> SafetensorsError:
        return SafetensorsError(f"{path.name}: {reason}")

    size = path.stat().st_size
    entries, begins_at = _parsed(path, size, refuse)
    entries.pop("__metadata__", None)
    if len(entries) > TENSORS_MAX:
        raise refuse(f"{len(entries)} tensors are too many")
    extents: list[tuple[int, int]] = []
    dtypes: dict[str, int] = {}
    for name, entry in entries.items():
        try:
            dtype, elements, begin, end = _entry(entry)
        except (ValueError, TypeError, KeyError) as error:
            raise refuse(f"the tensor {name[:64]!r} is described wrongly: {error}") from error
        dtypes[dtype] = dtypes.get(dtype, 0) + elements
        extents.append((begin, end))
    at = 0
    for begin, end in sorted(extents):
        if begin != at:
            raise refuse("its tensors overlap, or leave a hole")
        at = end
    if begins_at + at != size:
        raise refuse(
            f"it should have {begins_at + at} bytes and has {size}; is it cut short, or more than"
            " it says?"
        )
    return SafetensorsHeader(len(entries), sum(dtypes.values()), size, dtypes)


def _parsed(
    path: Path, size: int, refuse: Callable[[str], SafetensorsError]
) -> tuple[dict[str, Any], int]:
    """The header as JSON, and where the data begins. Raises SafetensorsError, OSError."""
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise refuse(f"{size} bytes are too few for a safetensors file")
        (length,) = struct.unpack("<Q", head)
        if not 2 <= length <= min(HEADER_BYTES_MAX, size - 8):
            raise refuse(f"its header of {length} bytes does not fit into the file")
        data = file.read(length)
    if not data.startswith(b"{"):
        raise refuse("its header does not begin with a brace")
    if depth_of(data) > DEPTH_MAX:
        raise refuse("its header is nested too deeply")
    try:
        entries: dict[str, Any] = json.loads(data, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise refuse(f"its header is not valid JSON: {error}") from error
    return entries, 8 + length


def _entry(entry: Any) -> tuple[str, int, int, int]:
    """Type, elements, begin and end of one tensor. Raises ValueError, TypeError, KeyError."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("it needs dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPE_BITS:
        raise ValueError(f"the type {dtype!r} is unknown")
    if not isinstance(shape, list) or len(shape) > DIMENSIONS_MAX:
        raise ValueError("its shape is no list of up to eight lengths")
    elements = 1
    for length in shape:
        if type(length) is not int or not 0 <= length < 2**48:
            raise ValueError("its shape holds what is no length")
        elements *= length
        if elements >= 2**56:
            raise ValueError("its shape is impossible")
    if not isinstance(offsets, list) or [type(each) for each in offsets] != [int, int]:
        raise ValueError("data_offsets are not two numbers")
    begin, end = offsets
    bits = elements * DTYPE_BITS[dtype]
    if begin < 0 or bits % 8 or end - begin != bits // 8:
        raise ValueError(f"its data is {end - begin} bytes long, not {bits / 8:g}")
    return dtype, elements, begin, end


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found
