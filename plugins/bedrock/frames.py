"""Frames of ``application/vnd.amazon.eventstream``, read from bytes as they arrive.

A frame is its own length, the length of its headers, a checksum of those two, headers, payload and
a checksum of all (AWS's description of event stream encoding; boto/botocore, ``eventstream.py``).
Numbers are big-endian, checksums CRC32.
"""

import struct
from struct import unpack_from
from zlib import crc32

import msgspec

_PRELUDE_BYTES = 12
_CRC_BYTES = 4
_HEADERS_BYTES_MAX = 128 * 1024
_STRING, _BYTES = 7, 6
# Bytes of a header's value by its type; strings and byte arrays say their own length.
_VALUE_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class BadFrame(Exception):
    """The bytes are no frame, or were changed on their way."""


class Frame(msgspec.Struct, frozen=True):
    """``headers`` are those with text in them, by name."""

    headers: dict[str, str]
    payload: bytes


class FrameParser:
    """Feed bytes, get the frames that they complete. ``bad`` says why no more can be read."""

    def __init__(self, frame_bytes_max: int) -> None:
        self.bad: str | None = None
        self._frame_bytes_max = frame_bytes_max
        self._bytes = bytearray()

    def feed(self, received: bytes) -> list[Frame]:
        """The frames completed by these bytes, in order; those before a bad one too."""
        self._bytes += received
        frames: list[Frame] = []
        at = 0
        try:
            while (size := self._size_at(at)) is not None and len(self._bytes) - at >= size:
                frames.append(_frame(bytes(self._bytes[at : at + size])))
                at += size
        except BadFrame as error:
            self.bad = str(error)
        del self._bytes[:at]
        return frames

    def _size_at(self, at: int) -> int | None:
        """Bytes of the frame that begins there, None where its prelude is not complete."""
        if len(self._bytes) - at < _PRELUDE_BYTES:
            return None
        size, headers_bytes, told = unpack_from("!III", self._bytes, at)
        if crc32(self._bytes[at : at + 8]) != told:
            raise BadFrame("the checksum of a frame's prelude is wrong")
        if size > self._frame_bytes_max or headers_bytes > _HEADERS_BYTES_MAX:
            raise BadFrame(f"a frame of {size} bytes, {headers_bytes} of them headers")
        if size < _PRELUDE_BYTES + headers_bytes + _CRC_BYTES:
            raise BadFrame("a frame is shorter than its headers")
        return int(size)


def _frame(whole: bytes) -> Frame:
    (told,) = unpack_from("!I", whole, len(whole) - _CRC_BYTES)
    if crc32(whole[:-_CRC_BYTES]) != told:
        raise BadFrame("the checksum of a frame is wrong")
    (headers_bytes,) = unpack_from("!I", whole, 4)
    end = _PRELUDE_BYTES + headers_bytes
    try:
        headers = _headers(whole[_PRELUDE_BYTES:end])
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise BadFrame("a frame's headers cannot be read") from error
    return Frame(headers, whole[end:-_CRC_BYTES])


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name = data[at + 1 : name_end].decode()
        kind = data[name_end]
        at = name_end + 1
        if kind in (_STRING, _BYTES):
            (size,) = unpack_from("!H", data, at)
            at += 2
            if at + size > len(data):
                raise IndexError
            if kind == _STRING:
                found[name] = data[at : at + size].decode()
        elif kind in _VALUE_BYTES:
            size = _VALUE_BYTES[kind]
        else:
            raise BadFrame(f"a header of type {kind}")
        at += size
    return found
