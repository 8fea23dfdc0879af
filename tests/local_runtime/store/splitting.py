"""A GGUF file split into several, as ``llama-gguf-split`` does it: all metadata in the first."""

import struct

from tests.local_runtime.store.gguf_files import entry, text
from tests.local_runtime.store.mutating import tensors_of


def split(data: bytes, count: int) -> list[bytes]:
    """Such files, each with its share of the tensors."""
    metadata, key_count, tensors, data_at = tensors_of(data)
    share = -(-len(tensors) // count)
    found = []
    for number in range(count):
        mine = tensors[number * share : (number + 1) * share]
        told = [
            entry("split.no", 2, struct.pack("<H", number)),
            entry("split.count", 2, struct.pack("<H", count)),
            entry("split.tensors.count", 5, struct.pack("<i", len(tensors))),
        ]
        own = metadata if number == 0 else entry("general.architecture", 8, text("llama"))
        keys = len(told) + (key_count if number == 0 else 1)
        head = b"GGUF" + struct.pack("<IQQ", 3, len(mine), keys) + own + b"".join(told)
        body = b""
        for described, begin, length in mine:
            head += described + struct.pack("<Q", len(body))
            piece = data[data_at + begin : data_at + begin + length]
            body += piece + b"\0" * (-len(piece) % 32)
        found.append(head + b"\0" * (-len(head) % 32) + body)
    return found
