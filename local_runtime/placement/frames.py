"""The words between a host and its engine, and how they travel through a pipe.

A frame is four bytes of length, big endian, and that many bytes of MessagePack: one tagged Struct.
"""

import os
import struct
import threading
from collections.abc import Callable

import msgspec

from local_runtime.engines.contract import (
    EngineEvent,
    EngineInfo,
    EngineRequest,
    EngineSpec,
    Occupancy,
)

FRAME_BYTES_MAX = 64 * 1024 * 1024
LENGTH = struct.Struct(">I")


class Load(msgspec.Struct, frozen=True, tag="load"):
    """To the engine, first and once. ``process_bytes_max`` is what its process may take, None for
    no limit.
    """

    spec: EngineSpec
    process_bytes_max: int | None = None


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """To the engine: generate this."""

    request: EngineRequest


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """To the engine: end this request."""

    request_id: str


class Quit(msgspec.Struct, frozen=True, tag="quit"):
    """To the engine: unload and end."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """From the engine: how much of the model is loaded, 0 to 1."""

    fraction: float


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """From the engine: ready."""

    info: EngineInfo


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """From the engine: it will never be ready."""

    message: str


class Stepped(msgspec.Struct, frozen=True, tag="stepped"):
    """From the engine: what came of a step, its clocks after it, and how full it is."""

    events: list[EngineEvent]
    busy_ns: int
    unbilled_ns: int
    occupancy: Occupancy = Occupancy()


ToEngine = Load | Submit | Cancel | Quit
FromEngine = Progress | Loaded | LoadFailed | Stepped

_encoder = msgspec.msgpack.Encoder()
to_engine_decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
from_engine_decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


class BrokenPipe(Exception):
    """The other side is gone, or sends what is no frame."""


def encode(message: ToEngine | FromEngine) -> bytes:
    """One frame."""
    body = _encoder.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"a message of {len(body)} bytes is too long for a frame")
    return LENGTH.pack(len(body)) + body


def body_length(prefix: bytes) -> int:
    """Bytes that follow a frame's first four, with which ``prefix`` begins. Raises BrokenPipe when
    that cannot be.
    """
    length: int = LENGTH.unpack_from(prefix)[0]
    if length > FRAME_BYTES_MAX:
        raise BrokenPipe(f"a frame of {length} bytes is announced")
    return length


class Splitter:
    """The bodies of frames, out of a stream that comes in pieces of any size."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Those that are whole with this piece. Raises BrokenPipe."""
        rest = self._rest
        if not rest and len(data) >= LENGTH.size and body_length(data) == len(data) - LENGTH.size:
            return [data[LENGTH.size :]]  # as nearly always
        rest += data
        bodies = []
        at = 0
        while len(rest) - at >= LENGTH.size:
            begins = at + LENGTH.size
            ends = begins + body_length(bytes(rest[at:begins]))
            if ends > len(rest):
                break
            bodies.append(bytes(rest[begins:ends]))
            at = ends
        del rest[:at]
        return bodies


def reader(fd: int) -> Callable[[], bytes | None]:
    """A function that reads the next frame's body from a blocking descriptor; None at its end."""

    def exactly(count: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < count:
            part = os.read(fd, count - len(parts))
            if not part:
                return None
            parts += part
        return bytes(parts)

    def read() -> bytes | None:
        prefix = exactly(LENGTH.size)
        return None if prefix is None else exactly(body_length(prefix))

    return read


def writer(fd: int) -> Callable[[FromEngine], None]:
    """A function that writes a frame whole, from any thread. Raises BrokenPipe."""
    lock = threading.Lock()

    def write(message: FromEngine) -> None:
        data = memoryview(encode(message))
        with lock:
            try:
                while data:
                    data = data[os.write(fd, data) :]
            except OSError as error:
                raise BrokenPipe(str(error)) from error

    return write
