"""What a client sent as a picture, looked at before native code decodes it.

Decoders believe what a header says, and have crashed, or filled the memory, on headers that lie. So
the format, the size and the wholeness are checked here first; nothing of the pixels is decoded but
that a PNG's data is inflated once, to see that it is as long as it should be and no longer.

Formats: PNG (W3C, 2nd edition), JPEG (ITU T.81, baseline and progressive Huffman), GIF (89a, its
first frame), BMP (uncompressed): what both stb_image, llama.cpp's decoder, and clients have.
"""

import re
import struct
import zlib

import msgspec

BYTES_MAX = 20 * 1024 * 1024
PIXELS_MAX = 40_000_000
SIDE_MAX = 16_384
# A progressive JPEG goes over all its pixels in each scan; encoders write about ten.
SCANS_MAX = 64
_PIECE_BYTES = 1 << 20

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_FRAMES_OF_JPEG = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_START_OF_SCAN = 0xDA
_SCAN = re.compile(rb"\xff\xda")
_FOREIGN = (
    (b"RIFF", "WebP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"<svg", "SVG"),
    (b"<?xml", "SVG"),
)


class BadPicture(Exception):
    """The message, which follows a place and a colon, says what is wrong, and what to send."""


class Picture(msgspec.Struct, frozen=True):
    """Bytes that may be decoded, and what their header says."""

    kind: str
    width: int
    height: int


def examine(data: bytes) -> Picture:
    """The picture's format and size in pixels. Raises BadPicture."""
    if not data:
        raise BadPicture("the picture is empty.")
    if len(data) > BYTES_MAX:
        raise BadPicture(f"the picture has more than {BYTES_MAX >> 20} MiB. Send a smaller one.")
    try:
        picture = _read(data)
    except (struct.error, IndexError) as error:
        raise BadPicture("the picture is cut short.") from error
    if not 1 <= picture.width <= SIDE_MAX or not 1 <= picture.height <= SIDE_MAX:
        raise BadPicture(
            f"the picture is {picture.width} by {picture.height} pixels; a side may have 1 to "
            f"{SIDE_MAX}."
        )
    if picture.width * picture.height > PIXELS_MAX:
        raise BadPicture(
            f"the picture is {picture.width} by {picture.height} pixels, and at most "
            f"{PIXELS_MAX // 1_000_000} million are read. Send a smaller one."
        )
    if picture.kind == "png":
        _inflate(data)
    return picture


def _read(data: bytes) -> Picture:
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    for mark, name in _FOREIGN:
        if data.startswith(mark):
            raise BadPicture(f"{name} is not read here. Send a PNG or a JPEG.")
    raise BadPicture("this is no picture that can be read. Send a PNG, JPEG, GIF or BMP.")


def _png(data: bytes) -> Picture:
    length, name, width, height, depth, colour, packing, filtering, interlace = struct.unpack(
        ">I4sIIBBBBB", data[8:29]
    )
    if (length, name) != (13, b"IHDR"):
        raise BadPicture("the PNG does not begin with its header.")
    if depth not in _DEPTHS.get(colour, ()) or packing or filtering or interlace > 1:
        raise BadPicture("the PNG's header is not valid.")
    return Picture("png", width, height)


def _inflate(data: bytes) -> None:
    """Raises BadPicture unless the PNG's data is whole, and no longer than its size makes it."""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    row = (width * _CHANNELS[colour] * depth + 7) // 8 + 1
    # Interlaced, it comes as seven pictures, whose rows end in fractions of bytes of their own.
    expected = row * height
    most = expected + 7 * (height + 8) * 2
    at, inflate, seen, palette = 8, zlib.decompressobj(), 0, False
    while True:
        try:
            length, name = struct.unpack(">I4s", data[at : at + 8])
        except struct.error as error:
            raise BadPicture("the picture is cut short.") from error
        if at + 12 + length > len(data):
            raise BadPicture("the picture is cut short.")
        if name == b"IEND":
            break
        palette = palette or name == b"PLTE"
        if name == b"IDAT":
            seen += _inflated(inflate, data[at + 8 : at + 8 + length], most - seen)
        at += 12 + length
    if seen < expected or (colour == 3 and not palette):
        raise BadPicture("the picture is cut short.")


def _inflated(inflate: "zlib._Decompress", packed: bytes, most: int) -> int:
    """How many bytes come out; they are thrown away in small pieces. Raises BadPicture."""
    count = 0
    while packed:
        try:
            count += len(inflate.decompress(packed, _PIECE_BYTES))
        except zlib.error as error:
            raise BadPicture("the PNG's data is damaged.") from error
        if count > most:
            raise BadPicture("the PNG holds more data than its size needs.")
        packed = inflate.unconsumed_tail
    return count


def _jpeg(data: bytes) -> Picture:
    at, picture = 2, None
    while True:
        marker, at, length = _segment(data, at)
        if marker in _OTHER_FRAMES:
            raise BadPicture("this kind of JPEG is not read here. Send a baseline JPEG, or a PNG.")
        if marker in _FRAMES_OF_JPEG:
            depth, height, width, components = struct.unpack(">BHHB", data[at + 2 : at + 8])
            if picture is not None or depth != 8 or components not in (1, 3, 4):
                raise BadPicture("the JPEG's header is not valid.")
            picture = Picture("jpeg", width, height)
        if marker == _START_OF_SCAN:
            break
        at += length
    if picture is None:
        raise BadPicture("the JPEG does not say its size.")
    if data.find(b"\xff\xd9", at) < 0:
        raise BadPicture("the picture is cut short.")
    if sum(1 for _ in _SCAN.finditer(data, at)) >= SCANS_MAX:
        raise BadPicture(f"the JPEG has more than {SCANS_MAX} scans. Send a baseline JPEG.")
    return picture


def _segment(data: bytes, at: int) -> tuple[int, int, int]:
    """A JPEG's marker, the place behind it, and the length of what belongs to it."""
    if data[at] != 0xFF:
        raise BadPicture("the JPEG is damaged.")
    while data[at] == 0xFF:  # any number of fill bytes may stand before a marker
        at += 1
    marker = data[at]
    if marker in (0x00, 0xD8, 0xD9) or 0xD0 <= marker <= 0xD7:
        raise BadPicture("the JPEG is damaged.")
    (length,) = struct.unpack(">H", data[at + 1 : at + 3])
    if length < 2 or at + 1 + length > len(data):
        raise BadPicture("the picture is cut short.")
    return marker, at + 1, length


def _gif(data: bytes) -> Picture:
    width, height, flags = struct.unpack("<HHB", data[6:11])
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at] == 0x21:
        at = _after_blocks(data, at + 2)
    if data[at] != 0x2C:
        raise BadPicture("the GIF holds no picture.")
    left, top, wide, high, flags = struct.unpack("<HHHHB", data[at + 1 : at + 10])
    if left + wide > width or top + high > height or not wide or not high:
        raise BadPicture("the GIF's header is not valid.")
    at += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    if not 2 <= data[at] <= 11:
        raise BadPicture("the GIF is damaged.")
    _after_blocks(data, at + 1)
    return Picture("gif", width, height)


def _after_blocks(data: bytes, at: int) -> int:
    """The place after a chain of blocks, each with its length before it, the last one empty."""
    while length := data[at]:
        at += length + 1
    return at + 1


def _bmp(data: bytes) -> Picture:
    offset, size, width, height, planes, bits, packing = struct.unpack("<IIiiHHI", data[10:34])
    if size not in (40, 52, 56, 108, 124) or planes != 1 or packing not in (0, 3):
        raise BadPicture("this kind of BMP is not read here. Send a PNG or a JPEG.")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise BadPicture("the BMP's header is not valid.")
    width, height = abs(width), abs(height)
    if offset < 14 + size or offset + (width * bits + 31) // 32 * 4 * height > len(data):
        raise BadPicture("the picture is cut short.")
    return Picture("bmp", width, height)
