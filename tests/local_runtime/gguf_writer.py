"""Writes GGUF files (ggml-org/ggml, ``docs/gguf.md``, version 3), for models that tests make."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 32
_TENSOR_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1}
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9

Value = bool | int | float | str | Sequence[str] | Sequence[int] | Sequence[float]


def write_gguf(
    path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """One file. Tensors are float32 or float16; a matrix of shape (rows, columns) is y = M·x."""
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    header += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for name, tensor in tensors.items():
        sizes = tensor.shape[::-1]
        header += _text(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        header += struct.pack("<IQ", _TENSOR_TYPES[tensor.dtype], offset)
        offset += _padded(tensor.nbytes)
    with path.open("wb") as file:
        file.write(header.ljust(_padded(len(header)), b"\0"))
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).tobytes().ljust(_padded(tensor.nbytes), b"\0"))


def _padded(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    kind = {str: _STRING, float: _FLOAT32}.get(type(value[0]), _INT32)
    number = "<f" if kind == _FLOAT32 else "<i"
    packed = (_text(each) if isinstance(each, str) else struct.pack(number, each) for each in value)
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(packed)
