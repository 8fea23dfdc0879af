"""Mutations of a real GGUF header: bit flips, lying counts, lengths, types, values, and cuts.

The walker is written from the format's description, and shares nothing with the reader that is
tested. It notes where every field of the header lies, so that most mutations hit something that is
read: flips at random places would mostly hit the text of tokens.
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_FLOATS = {6: "<f", 12: "<d"}
_STRING, _ARRAY = 8, 9
_VALUES_KEPT = 40  # of each array: the others are like them


@dataclass(frozen=True)
class Field:
    """A number or text in the header: where it is, how long, and what it is for."""

    at: int
    size: int
    kind: str
    name: str


@dataclass
class Anatomy:
    """Where everything in a header lies; ``end`` is where the tensors' data begins."""

    fields: list[Field] = field(default_factory=list)
    end: int = 0

    def of(self, *kinds: str) -> list[Field]:
        return [each for each in self.fields if each.kind in kinds]


@dataclass(frozen=True)
class Mutation:
    """Edits of the header, at offsets; or a cut of the file to ``length`` bytes."""

    what: str
    edits: tuple[tuple[int, bytes], ...] = ()
    length: int | None = None

    def apply(self, header: bytes) -> bytes:
        changed = bytearray(header)
        for at, value in self.edits:
            changed[at : at + len(value)] = value
        return bytes(changed[: self.length])


class _Walker:
    def __init__(self, data: bytes, chosen: random.Random) -> None:
        self._data = data
        self._at = 0
        self._chosen = chosen
        self.found = Anatomy()

    def walk(self) -> Anatomy:
        self._at = 4
        self._number(4, "version", "version")
        tensors = self._number(8, "count", "tensor count")
        keys = self._number(8, "count", "key count")
        for _ in range(keys):
            key = self._text("key", "key")
            self._value(self._number(4, "type", key), key)
        for _ in range(tensors):
            name = self._text("tensor name", "tensor")
            for _ in range(self._number(4, "dimensions", name)):
                self._number(8, "shape", name)
            self._number(4, "tensor type", name)
            self._number(8, "offset", name)
        self.found.end = -(-self._at // 32) * 32
        return self.found

    def _value(self, type_id: int, key: str) -> None:
        if type_id == _STRING:
            self._text("text", key)
        elif type_id != _ARRAY:
            kind = "float" if type_id in _FLOATS else "value"
            self._note(_SIZES[type_id], kind, key)
        else:
            inner = self._number(4, "array type", key)
            count = self._number(8, "array length", key)
            kept = set(self._chosen.sample(range(count), min(count, _VALUES_KEPT)))
            for at in range(count):
                self._item(inner, key, noted=at in kept)

    def _item(self, type_id: int, key: str, *, noted: bool) -> None:
        before = len(self.found.fields)
        if type_id == _STRING:
            self._text("item", key)
        else:
            self._note(_SIZES[type_id], "item value", key)
        if not noted:
            del self.found.fields[before:]

    def _number(self, size: int, kind: str, name: str) -> int:
        self._note(size, kind, name)
        return int.from_bytes(self._data[self._at - size : self._at], "little")

    def _text(self, kind: str, name: str) -> str:
        length = self._number(8, "length", name)
        self._note(length, kind, name)
        return self._data[self._at - length : self._at].decode("utf-8", "replace")

    def _note(self, size: int, kind: str, name: str) -> None:
        self.found.fields.append(Field(self._at, size, kind, name))
        self._at += size


def tensors_of(data: bytes) -> tuple[bytes, int, list[tuple[bytes, int, int]], int]:
    """Metadata as it stands, how many keys that is, each tensor (its description without the
    offset, where its data begins, how long it is up to the next one), and where all data begins.
    """
    anatomy = anatomy_of(data, random.Random(0))
    names = [at for at, each in enumerate(anatomy.fields) if each.kind == "tensor name"]
    begins = [each for each in anatomy.fields if each.kind == "offset"]
    offsets = [int.from_bytes(data[each.at : each.at + 8], "little") for each in begins]
    ends = sorted([*offsets, len(data) - anatomy.end])
    found = []
    for name, begin, offset in zip(names, begins, offsets, strict=True):
        described = data[anatomy.fields[name - 1].at : begin.at]
        found.append((described, offset, ends[ends.index(offset) + 1] - offset))
    first = anatomy.fields[names[0] - 1].at
    return data[24:first], int.from_bytes(data[16:24], "little"), found, anatomy.end


def header_of(path: Path) -> bytes:
    """The bytes in front of the tensors' data."""
    with path.open("rb") as file:
        data = file.read(16 << 20)
    return data[: _Walker(data, random.Random(0)).walk().end]


def anatomy_of(header: bytes, chosen: random.Random) -> Anatomy:
    """Every field, and some of the items of each array."""
    return _Walker(header, chosen).walk()


def mutations(header: bytes, count: int, seed: int) -> Iterator[Mutation]:
    """So many, the same for the same seed."""
    chosen = random.Random(seed)
    anatomy = anatomy_of(header, chosen)
    made: list[Callable[[], Mutation]] = [
        lambda: _flip(header, chosen, range(4, len(header))),
        lambda: _flip_field(header, chosen, anatomy.fields),
        lambda: _number(header, chosen, anatomy.of("count", "array length", "length")),
        lambda: _number(header, chosen, anatomy.of("value")),
        lambda: _number(header, chosen, anatomy.of("value")),
        lambda: _float(chosen, anatomy.of("float")),
        lambda: _type(chosen, anatomy.of("type", "array type")),
        lambda: _number(header, chosen, anatomy.of("dimensions", "shape", "offset")),
        lambda: _tensor_type(chosen, anatomy.of("tensor type")),
        lambda: _number(header, chosen, anatomy.of("item value")),
        lambda: _same_text(header, chosen, anatomy.of("item", "tensor name", "key")),
        lambda: _noise(chosen, anatomy.of("item", "text", "key", "tensor name")),
        lambda: Mutation("cut", length=chosen.randrange(len(header))),
        lambda: _many(header, chosen, anatomy.fields),
    ]
    for _ in range(count):
        yield chosen.choice(made)()


def _flip(header: bytes, chosen: random.Random, places: range) -> Mutation:
    at, bit = chosen.choice(places), chosen.randrange(8)
    return Mutation(f"bit {bit} of byte {at}", ((at, bytes([header[at] ^ 1 << bit])),))


def _flip_field(header: bytes, chosen: random.Random, fields: list[Field]) -> Mutation:
    one = chosen.choice([each for each in fields if each.size])
    flip = _flip(header, chosen, range(one.at, one.at + one.size))
    return Mutation(f"{flip.what}, {one.kind} of {one.name}", flip.edits)


def _number(header: bytes, chosen: random.Random, fields: list[Field]) -> Mutation:
    one = chosen.choice(fields)
    bits = 8 * one.size
    now = int.from_bytes(header[one.at : one.at + one.size], "little")
    candidates = [0, 1, 2, 3, 7, now - 1, now + 1, now * 2, now // 2, now + 32, 64, 1000]
    candidates += [2 ** (bits - 1), 2 ** (bits - 1) - 1, 2**bits - 1, 2**bits - 32, 2**16, 2**31]
    candidates += [2**32, chosen.getrandbits(bits), chosen.getrandbits(chosen.randint(1, bits))]
    value = chosen.choice(candidates) % 2**bits
    edit = (one.at, value.to_bytes(one.size, "little"))
    return Mutation(f"{one.kind} of {one.name}: {now} → {value}", (edit,))


def _float(chosen: random.Random, fields: list[Field]) -> Mutation:
    one = chosen.choice(fields)
    value = chosen.choice([0.0, -1.0, float("nan"), float("inf"), -1e38, 1e-45, 1e38, 0.5])
    edit = (one.at, struct.pack("<f" if one.size == 4 else "<d", value))
    return Mutation(f"{one.name} = {value}", (edit,))


def _type(chosen: random.Random, fields: list[Field]) -> Mutation:
    one = chosen.choice(fields)
    value = chosen.choice([*range(14), 255, 2**31])
    return Mutation(f"{one.kind} of {one.name} = {value}", ((one.at, struct.pack("<I", value)),))


def _tensor_type(chosen: random.Random, fields: list[Field]) -> Mutation:
    one = chosen.choice(fields)
    value = chosen.choice([*range(45), 99, 2**31 - 1, 2**32 - 1])
    return Mutation(f"type of {one.name} = {value}", ((one.at, struct.pack("<I", value)),))


def _same_text(header: bytes, chosen: random.Random, fields: list[Field]) -> Mutation:
    """One text becomes that of another of the same kind and length: a name that is there twice."""
    one = chosen.choice([each for each in fields if each.size])
    alike = [e for e in fields if e.kind == one.kind and e.size == one.size and e.name == one.name]
    alike = alike if one.kind == "item" else [e for e in fields if e.size == one.size]
    other = chosen.choice(alike)
    text = header[other.at : other.at + other.size]
    return Mutation(f"{one.kind} of {one.name} at {one.at}: that at {other.at}", ((one.at, text),))


def _noise(chosen: random.Random, fields: list[Field]) -> Mutation:
    one = chosen.choice([each for each in fields if each.size])
    made = [chosen.randbytes(one.size), b" " * one.size, b"\0" * one.size, b"{" * one.size]
    return Mutation(f"noise in {one.kind} of {one.name}", ((one.at, chosen.choice(made)),))


def _many(header: bytes, chosen: random.Random, fields: list[Field]) -> Mutation:
    flips = [_flip_field(header, chosen, fields) for _ in range(chosen.randint(2, 12))]
    return Mutation(
        "; ".join(flip.what for flip in flips),
        tuple(edit for flip in flips for edit in flip.edits),
    )
