"""The header of a GGUF file, read and checked in Python before native code sees the file.

Format: ggml-org/ggml, ``docs/gguf.md``, versions 2 and 3, little endian. Every count, length and
offset is checked against the file's size, since llama.cpp has crashed on files that lie about them
(CVE-2025-53630, CVE-2026-27940).
"""

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec

METADATA_BYTES_MAX = 64 * 1024 * 1024
KEYS_MAX = 65_536
TENSORS_MAX = 65_536
KEY_BYTES_MAX = 65_535
NAME_BYTES_MAX = 127
DIMENSIONS_MAX = 4
ARRAY_DEPTH_MAX = 1
ALIGNMENT_DEFAULT = 32
ALIGNMENT_MAX = 65_536
ELEMENTS_MAX = 2**48
TOKENS_MAX = 2**21  # the largest vocabularies have a quarter of a million
ARRAY_KEPT_MAX = 4096  # numbers, such as one for each layer; vocabularies are longer

Scalar = int | float | bool | str

# Type id of a metadata value: its struct format. 8 is a string, 9 an array.
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_TOKENS = "tokenizer.ggml.tokens"
_SIZES = {type_id: struct.calcsize(f"<{fmt}") for type_id, fmt in _SCALARS.items()}

# ggml type: (elements of a block, bytes of a block), from ggml-common.h and gguf-py's constants.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip


class GgufError(Exception):
    """The file is not one that may be loaded; the text says what is wrong with it."""


class Tensor(msgspec.Struct, frozen=True):
    """One tensor: its ggml type's number, its shape (innermost first), the bytes of its data."""

    name: str
    type_id: int
    shape: tuple[int, ...]
    size_bytes: int


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime needs to know before loading.

    All arrays are checked; ``arrays`` keeps those of up to ARRAY_KEPT_MAX numbers, and
    ``array_lengths`` says how long each is. ``byte_tokens`` counts the bytes that a token of the
    vocabulary spells alone. ``file_count``: how many files the model is split into.
    """

    version: int
    architecture: str
    tensor_count: int
    file_bytes: int
    metadata: dict[str, Scalar]
    arrays: dict[str, tuple[int | float | bool, ...]] = {}
    tensors: tuple[Tensor, ...] = ()
    array_lengths: dict[str, int] = {}
    byte_tokens: int = 256
    file_count: int = 1

    @property
    def context_length(self) -> int | None:
        """Tokens the model was trained for."""
        value = self.metadata.get(f"{self.architecture}.context_length")
        return value if isinstance(value, int) and 0 < value < 2**31 else None

    @property
    def chat_template(self) -> str | None:
        """Jinja source that renders a conversation."""
        value = self.metadata.get("tokenizer.chat_template")
        return value if isinstance(value, str) and value else None


def read_file(path: Path) -> GgufHeader:
    """Read and check the bounds of one file's header, be it a whole model or a part of one.

    Raises GgufError, or OSError where the file cannot be opened. ``read_header`` looks at the model
    as a whole, and is what is asked before native code sees a file.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 24:
            raise GgufError(f"{path.name}: {size} bytes are too few for a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, size, path.name).header()


def read_header(path: Path) -> GgufHeader:
    """Read and check a model: all its parts, where ``path`` is the first of several.

    Raises GgufError, or OSError where a file cannot be opened.
    """
    from local_runtime.store.gguf_model import checked

    return checked(path, read_file(path))


class _Reader:
    """A cursor over the file that never leaves it."""

    def __init__(self, data: mmap.mmap, size: int, name: str) -> None:
        self._data = data
        self._size = size
        self._name = name
        self._at = 0
        self._arrays: dict[str, tuple[int | float | bool, ...]] = {}
        self._lengths: dict[str, int] = {}
        self._byte_tokens = 256

    def header(self) -> GgufHeader:
        if self._take(4) != b"GGUF":
            self._refuse("it does not start with the letters GGUF")
        version = self._number("I")
        if version not in {2, 3}:
            if version in {0x02000000, 0x03000000}:
                self._refuse("big-endian files are not supported")
            self._refuse(f"version {version} is not supported, only 2 and 3")
        tensor_count, key_count = self._number("Q"), self._number("Q")
        if tensor_count > TENSORS_MAX or key_count > KEYS_MAX:
            self._refuse(f"{tensor_count} tensors and {key_count} keys are too many")
        metadata = self._metadata(key_count)
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            self._refuse("general.architecture is missing")
        tensors = self._tensors(tensor_count, self._alignment(metadata))
        return GgufHeader(
            version=version,
            architecture=architecture,
            tensor_count=tensor_count,
            file_bytes=self._size,
            metadata=metadata,
            arrays=self._arrays,
            tensors=tensors,
            array_lengths=self._lengths,
            byte_tokens=self._byte_tokens,
        )

    def _metadata(self, key_count: int) -> dict[str, Scalar]:
        metadata: dict[str, Scalar] = {}
        for _ in range(key_count):
            key = self._string(KEY_BYTES_MAX)
            if key in metadata:
                self._refuse(f"the key {key[:64]!r} is there twice")
            value = self._value(key)
            if value is not None:
                metadata[key] = value
            if self._at > METADATA_BYTES_MAX:
                self._refuse(f"more than {METADATA_BYTES_MAX >> 20} MiB of metadata")
        return metadata

    def _value(self, key: str) -> Scalar | None:
        """One value; None for an array, which is walked over, and kept if it is short."""
        type_id = self._number("I")
        if type_id == _STRING:
            return self._string(METADATA_BYTES_MAX)
        if type_id == _ARRAY:
            start = self._at
            if key == _TOKENS:
                self._vocabulary()
            else:
                self._array(0)
            self._keep_array(key, start)
            return None
        if type_id not in _SCALARS:
            self._refuse(f"metadata type {type_id} is unknown")
        value: Scalar = struct.unpack("<" + _SCALARS[type_id], self._take(_SIZES[type_id]))[0]
        return value

    def _keep_array(self, key: str, start: int) -> None:
        """Keep the array that was walked over from ``start`` on, where it is a few numbers."""
        type_id, count = struct.unpack_from("<IQ", self._data, start)
        self._lengths[key] = count
        if type_id in _SCALARS and count <= ARRAY_KEPT_MAX:
            fmt = f"<{count}{_SCALARS[type_id]}"
            self._arrays[key] = struct.unpack_from(fmt, self._data, start + 12)

    def _vocabulary(self) -> None:
        """No token twice: llama.cpp ends the process over it. Counts those that spell one byte."""
        type_id, count = self._number("I"), self._number("Q")
        if type_id != _STRING or count > TOKENS_MAX:
            self._refuse(f"its vocabulary is an array of {count} values of the type {type_id}")
        seen: set[bytes] = set()
        for number, token in enumerate(self._strings(count)):
            seen.add(token or b"[EMPTY_%d]" % number)
        if len(seen) != count:
            self._refuse(f"{count - len(seen)} of its tokens are there twice")
        self._byte_tokens = sum(
            b"<0x%02X>" % byte in seen or bytes([byte]) in seen for byte in range(256)
        )

    def _array(self, depth: int) -> None:
        if depth > ARRAY_DEPTH_MAX:
            self._refuse("arrays are nested too deeply")
        type_id, count = self._number("I"), self._number("Q")
        if count > self._size:
            self._refuse(f"an array of {count} values is longer than the file")
        if type_id in _SIZES:
            self._skip(count * _SIZES[type_id])
            return
        if type_id == _STRING:
            for _ in self._strings(count):
                pass
            return
        for _ in range(count):
            if type_id == _ARRAY:
                self._array(depth + 1)
            else:
                self._refuse(f"array type {type_id} is unknown")
            if self._at > METADATA_BYTES_MAX:
                self._refuse(f"more than {METADATA_BYTES_MAX >> 20} MiB of metadata")

    def _strings(self, count: int) -> Iterator[bytes]:
        """That many, one after another: vocabularies are long, so this is quick."""
        end = min(self._size, METADATA_BYTES_MAX)
        data, length_at = self._data, struct.Struct("<Q").unpack_from
        for _ in range(count):
            if self._at + 8 > end:
                self._refuse("its texts run past the end of the file, or of what is read of it")
            (length,) = length_at(data, self._at)
            begin = self._at + 8
            if length > end - begin:
                self._refuse(f"a text of {length} bytes is too long")
            self._at = begin + length
            yield data[begin : self._at]

    def _alignment(self, metadata: dict[str, Scalar]) -> int:
        alignment = metadata.get("general.alignment", ALIGNMENT_DEFAULT)
        if (
            not isinstance(alignment, int)
            or not 1 <= alignment <= ALIGNMENT_MAX
            or alignment & (alignment - 1)
        ):
            self._refuse(f"general.alignment is {alignment!r}, not a power of two")
        return alignment

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        names: set[str] = set()
        tensors: list[Tensor] = []
        extents: list[tuple[int, int]] = []
        for _ in range(count):
            name = self._string(NAME_BYTES_MAX)
            if name in names:
                self._refuse(f"the tensor {name!r} is there twice")
            names.add(name)
            tensor, offset = self._tensor(name, alignment)
            tensors.append(tensor)
            extents.append((offset, tensor.size_bytes))
        start = -(-self._at // alignment) * alignment
        end = 0
        for offset, length in sorted(extents):
            if offset < end:
                self._refuse("two tensors overlap")
            end = offset + length
            if start + end > self._size:
                self._refuse("a tensor's data lies past the end of the file; is it cut short?")
        return tuple(tensors)

    def _tensor(self, name: str, alignment: int) -> tuple[Tensor, int]:
        """One tensor, and where its data starts."""
        dimensions = self._number("I")
        if not 1 <= dimensions <= DIMENSIONS_MAX:
            self._refuse(f"the tensor {name!r} has {dimensions} dimensions")
        shape = [self._number("Q") for _ in range(dimensions)]
        type_id, offset = self._number("I"), self._number("Q")
        if type_id not in _BLOCKS:
            self._refuse(f"the tensor {name!r} has the unknown type {type_id}")
        elements = 1
        for length in shape:
            elements *= length
            if not 1 <= length <= ELEMENTS_MAX or elements > ELEMENTS_MAX:
                self._refuse(f"the tensor {name!r} has an impossible shape")
        block, block_bytes = _BLOCKS[type_id]
        if shape[0] % block:
            self._refuse(f"rows of the tensor {name!r} are not a whole number of blocks")
        if offset % alignment:
            self._refuse(f"the tensor {name!r} is not aligned")
        return Tensor(name, type_id, tuple(shape), elements // block * block_bytes), offset

    def _number(self, fmt: str) -> int:
        value: int = struct.unpack("<" + fmt, self._take(struct.calcsize(fmt)))[0]
        return value

    def _string(self, bytes_max: int) -> str:
        length = self._number("Q")
        if length > bytes_max:
            self._refuse(f"a string of {length} bytes is too long")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            self._refuse("a string is not valid UTF-8")

    def _take(self, count: int) -> bytes:
        start = self._at
        self._skip(count)
        return self._data[start : self._at]

    def _skip(self, count: int) -> None:
        if count > self._size - self._at:
            self._refuse("the header runs past the end of the file; is it cut short?")
        self._at += count

    def _refuse(self, reason: str) -> NoReturn:
        raise GgufError(f"{self._name}: {reason}")
