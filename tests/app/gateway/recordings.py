"""Recordings as files of every format, made by hand: nothing in them is worth hearing."""

import io
import struct
import wave

AAC_16K = 8  # the index of 16,000 Hz in a header of AAC
OPUS_HEAD = b"OpusHead\x01\x01" + struct.pack("<HIhB", 312, 48_000, 0, 0)
MP3_128K_FRAME = b"\xff\xfb\x90\x00" + bytes(413)  # 1,152 samples at 44,100 Hz


def wav(samples: int, rate: int = 16_000, channels: int = 1, sample_bytes: int = 2) -> bytes:
    """Plain samples, as the standard library writes them."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(sample_bytes)
        writer.setframerate(rate)
        writer.writeframes(bytes(samples * channels * sample_bytes))
    return file.getvalue()


def flac(samples: int, rate: int = 44_100, body: int = 1_000) -> bytes:
    """Two channels of 16 bits; ``body`` bytes of frames."""
    info = rate << 44 | 1 << 41 | 15 << 36 | samples
    stream_info = bytes(10) + info.to_bytes(8, "big") + bytes(16)
    return b"fLaC\x80" + len(stream_info).to_bytes(3, "big") + stream_info + bytes(body)


def ogg_page(payload: bytes, granule: int, *, serial: int = 1, first: bool = False) -> bytes:
    """A page of one packet of up to 255 bytes."""
    head = struct.pack("<BBqIII", 0, 2 if first else 0, granule, serial, 0, 0)
    return b"OggS" + head + bytes([1, len(payload)]) + payload


def ogg(granules: list[int], head: bytes = OPUS_HEAD) -> bytes:
    """A stream whose pages come to these granules."""
    pages = [ogg_page(bytes(200), granule) for granule in granules]
    return ogg_page(head, 0, first=True) + b"".join(pages)


def adts(length: int = 100) -> bytes:
    """A frame of AAC: 1,024 samples at 16,000 Hz."""
    rate = 0x40 | AAC_16K << 2
    return (
        bytes([0xFF, 0xF1, rate, 0x40 | length >> 11, length >> 3 & 255, (length & 7) << 5 | 31])[
            :6
        ]
        + bytes([0xFC])
        + bytes(length - 7)
    )


def box(name: bytes, *content: bytes) -> bytes:
    """A box of MP4."""
    inside = b"".join(content)
    return struct.pack(">I", len(inside) + 8) + name + inside


def mp4(
    movie: int, track: int, scale: int = 1_000, *, more: bytes = b"", wide: bool = False
) -> bytes:
    """A movie that lasts so many units of its clock, with one track that lasts so many."""

    def header(name: bytes, length: int) -> bytes:
        if wide:
            return box(name, b"\x01" + bytes(19) + struct.pack(">IQ", scale, length))
        return box(name, bytes(12) + struct.pack(">II", scale, length))

    tracks = box(b"trak", box(b"tkhd", bytes(80)), box(b"mdia", header(b"mdhd", track)))
    movie_box = box(b"moov", header(b"mvhd", movie), tracks, more)
    return box(b"ftyp", b"M4A \0\0\0\0") + box(b"mdat", bytes(500)) + movie_box


def element(name: int, content: bytes, *, open_ended: bool = False) -> bytes:
    """An element of WebM; an open-ended one does not say its size."""
    size = b"\x01" + (b"\xff" * 7 if open_ended else len(content).to_bytes(7, "big"))
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + size + content


def webm(duration: float | None, clusters: list[int] | None = None) -> bytes:
    """A file with a length, or without one but with clusters that begin at these milliseconds, as
    browsers record it."""
    info = element(0x2AD7B1, (1_000_000).to_bytes(4, "big"))
    if duration is not None:
        info += element(0x4489, struct.pack(">d", duration))
    inside = element(0x1549A966, info)
    for at in clusters or []:
        blocks = element(0xE7, at.to_bytes(4, "big")) + element(0xA3, bytes(50))
        inside += element(0x1F43B675, blocks, open_ended=True)
    return element(0x1A45DFA3, element(0x4282, b"webm")) + element(
        0x18538067, inside, open_ended=True
    )
