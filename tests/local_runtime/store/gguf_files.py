"""Small GGUF files made by hand, for tests of the store: right ones, in any number of parts."""

import struct
from collections.abc import Sequence


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str, type_id: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_id) + value


def whole(values: int = 4096, *, seed: int = 0, extra: Sequence[bytes] = ()) -> bytes:
    """A valid file with one tensor of so many float32 values, different for each ``seed``."""
    return part([("blk.0.weight", values)], seed=seed, entries=[*_metadata(), *extra])


def parts(names: Sequence[str], *, values: int = 2048) -> list[bytes]:
    """A model split into as many files as there are tensors."""
    found = []
    for number, name in enumerate(names):
        split = [
            entry("split.no", 2, struct.pack("<H", number)),
            entry("split.count", 2, struct.pack("<H", len(names))),
            entry("split.tensors.count", 5, struct.pack("<i", len(names))),
        ]
        entries = [*(_metadata() if not number else [_arch()]), *split]
        found.append(part([(name, values)], seed=number, entries=entries))
    return found


def part(tensors: Sequence[tuple[str, int]], *, seed: int, entries: Sequence[bytes]) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries)
    offset = 0
    for name, values in tensors:
        head += text(name) + struct.pack("<IQIQ", 1, values, 0, offset)
        offset += -(-4 * values // 32) * 32
    period = bytes((seed + n) % 251 for n in range(251))
    data = (period * (offset // 251 + 1))[:offset]
    return head + b"\0" * (-len(head) % 32) + data


def _arch() -> bytes:
    return entry("general.architecture", 8, text("llama"))


def _metadata() -> list[bytes]:
    return [
        _arch(),
        entry("llama.context_length", 4, struct.pack("<I", 2048)),
        entry("llama.block_count", 4, struct.pack("<I", 1)),
        entry("tokenizer.chat_template", 8, text("{{ messages }}")),
    ]
