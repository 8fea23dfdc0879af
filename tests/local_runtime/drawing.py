"""Pictures made for tests, in each format that is read: coloured noise in large squares."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def noise(width: int, height: int, seed: int) -> Pixels:
    """Shape (height, width, 3); squares of 8 by 8 pixels, so that resizing keeps some of it."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return small.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def png(width: int = 64, height: int = 48, seed: int = 1) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in noise(width, height, seed))
    return png_of(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), zlib.compress(rows))


def png_of(header: bytes, packed: bytes) -> bytes:
    """A PNG of a header's 13 bytes and packed data, whatever they say."""
    parts = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, data) for name, data in parts)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bmp(width: int = 64, height: int = 48, seed: int = 1) -> bytes:
    stride = (width * 3 + 3) // 4 * 4
    rows = noise(width, height, seed)[::-1, :, ::-1]
    body = b"".join(row.tobytes().ljust(stride, b"\0") for row in rows)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + info + body


def gif(width: int = 64, height: int = 48, seed: int = 1) -> bytes:
    """128 greys; the dictionary is emptied before codes grow longer than a byte."""
    greys = (noise(width, height, seed)[:, :, 0] >> 1).tobytes()
    codes = b"".join(b"\x80" + greys[at : at + 100] for at in range(0, len(greys), 100)) + b"\x81"
    blocks = b"".join(
        bytes([len(block)]) + block
        for block in (codes[at : at + 255] for at in range(0, len(codes), 255))
    )
    palette = b"".join(bytes([2 * grey] * 3) for grey in range(128))
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF6, 0, 0) + palette
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x07" + blocks + b"\0"
    return screen + frame + b"\x3b"


def jpeg(width: int = 64, height: int = 48, seed: int = 1) -> bytes:
    """Baseline, grey, one value for each 8 by 8 pixels."""
    greys = noise(width, height, seed)[::8, ::8, 0].astype(int).reshape(-1)
    bits, before = "", 0
    for grey in greys:
        level = int(grey) - 128
        value, before = level - before, level
        size = abs(value).bit_length()
        low = value if value >= 0 else value + (1 << size) - 1
        bits += f"{size:04b}" + (f"{low:0{size}b}" if size else "") + "0"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    tables = b"\x00" + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12))  # sizes 0 to 11, 4 bits
    tables += b"\x10" + bytes([1] + [0] * 15) + b"\x00"  # nothing but the end of a block
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    segments = (
        (0xDB, b"\x00" + b"\x08" * 64),
        (0xC0, frame),
        (0xC4, tables),
        (0xDA, b"\x01\x01\x00\x00\x3f\x00"),
    )
    head = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments
    )
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
