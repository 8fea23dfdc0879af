"""How long a recording is at most, from its bytes: what a transcription may be charged for. Pure.

Nothing is decoded. Where the length follows from the bytes themselves (WAV, MP3, AAC) it is
counted. Where the format says it in a few bytes (FLAC, Ogg, MP4, WebM) that is taken; of FLAC and
Ogg never less than the file would last at the highest rate of the format. Whatever is not
understood counts as the sparsest speech that codecs are made for. So an honest file of these
formats is never understated. One that was forged for it can be, and then costs more than its hold;
its size bounds by how much.

A file is looked at for up to a tenth of a second, if it is large: for a thread.

Layouts: RIFF/WAVE as in RFC 2361, FLAC RFC 9639, Ogg RFC 3533, Opus in Ogg RFC 7845, MP3 ISO
11172-3 and 13818-3, ADTS ISO 13818-7, MP4 ISO 14496-12, WebM RFC 9559.
"""

import math
import struct
from collections.abc import Iterator
from itertools import islice

BYTES_PER_S_MIN = 750  # 6 kbit/s, where Opus begins (RFC 6716); MP3 begins at 8
# What is looked at in a file, so that a forged one cannot keep the processor; the rest is unknown.
FRAMES_MAX = 100_000  # about 40 minutes
PAGES_MAX = 20_000
BOXES_MAX = 1_000
_MP4_LEFT_OUT = 250_000_000  # ns: of the last frames, which writers do not always count in
_OGG_BYTES_PER_S_MAX = 128_000  # a million bits: twice what Opus and Vorbis go up to
_S = 10**9  # in nanoseconds, as all lengths here
_MS = 10**6
_PCM = (1, 3, 6, 7)  # integers, floats, A-law, µ-law
_WAVE_EXTENSIBLE = 0xFFFE


def sound_ms_max(data: bytes) -> int:
    """The most milliseconds that a file can last, rounded up."""
    data = _without_id3(data)
    head = data[:12]
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        found = _wav_ns(data)
    elif head[:4] == b"fLaC":
        found = _flac_ns(data)
    elif head[:4] == b"OggS":
        found = _ogg_ns(data)
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        found = _mp4_ns(data)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        found = _webm_ns(data)
    else:
        found = _frames_ns(data) if _frame(data, 0) else None
    return -(-(_unknown_ns(len(data)) if found is None else found) // _MS)


def unknown_sound_ms_max(length: int) -> int:
    """The most milliseconds that so many bytes of whatever kind can last."""
    return -(-_unknown_ns(length) // _MS)


def _unknown_ns(length: int) -> int:
    return -(-length * _S // BYTES_PER_S_MIN)


def _without_id3(data: bytes) -> bytes:
    """The sound behind a tag with title and cover, which players skip."""
    if data[:3] != b"ID3":
        return data
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return data[10 + size :] or data


# WAV: samples of one size.


def _wav_ns(data: bytes) -> int | None:
    bytes_per_s, at = 0, 12
    for _ in range(BOXES_MAX):
        name, size = data[at : at + 4], _little(data, at + 4, 4)
        at += 8
        if name == b"data":
            # Up to the end, whatever the size: writers that stream leave it out.
            length = max(len(data) - at, 0)
            return -(-length * _S // bytes_per_s) if bytes_per_s else None
        if name == b"fmt ":
            bytes_per_s = _wav_bytes_per_s(data[at : at + 40])
        at += size + size % 2
    return None


def _wav_bytes_per_s(form: bytes) -> int:
    """0 where the samples are compressed."""
    if len(form) < 16:
        return 0
    tag, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", form)
    if tag == _WAVE_EXTENSIBLE:
        tag = _little(form, 24, 2)
    if tag not in _PCM:
        return 0
    frame = channels * -(-bits // 8)
    return int(min(frame, align or frame) * rate)


# FLAC: the first block says the number of samples.


def _flac_ns(data: bytes) -> int | None:
    info = _big(data, 18, 8)
    rate, samples = info >> 44, info & (1 << 36) - 1
    if not rate or not samples:
        return None
    bytes_per_s = rate * ((info >> 41 & 7) + 1) * -(-((info >> 36 & 31) + 1) // 8)
    # FLAC falls back to plain samples, and so is hardly larger than they are.
    return max(-(-samples * _S // rate), len(data) * _S // (bytes_per_s + bytes_per_s // 16))


# Ogg: each page says how far its stream has come.


def _ogg_ns(data: bytes) -> int | None:
    rates: dict[int, int] = {}
    ends: dict[int, int] = {}
    at, unknown, size = 0, 0, len(data)
    for _ in range(PAGES_MAX):
        if at >= size:
            break
        if data[at : at + 4] != b"OggS" or at + 27 > size:
            after = _next(data, b"OggS", at + 1)
            unknown, at = unknown + after - at, after
            continue
        _, kind, granule, serial = struct.unpack_from("<BBqI", data, at + 4)
        segments = data[at + 27 : at + 27 + data[at + 26]]
        payload = at + 27 + len(segments)
        if kind & 2:
            rate = _ogg_rate(data[payload : payload + 40])
            if not rate:
                return None
            rates[serial] = rate
        ends[serial] = max(ends.get(serial, 0), granule)
        at = payload + sum(segments)
    if not rates or not ends.keys() <= rates.keys():
        return None
    said = sum(-(-end * _S // rates[serial]) for serial, end in ends.items())
    said = max(said, size * _S // _OGG_BYTES_PER_S_MAX)
    return said + _unknown_ns(unknown + max(size - at, 0))


def _ogg_rate(head: bytes) -> int:
    """Granules a second, from a stream's first packet; 0 where it is not known."""
    if head.startswith(b"OpusHead"):
        return 48_000
    if head.startswith(b"\x01vorbis"):
        return _little(head, 12, 4)
    if head.startswith(b"Speex   "):
        return _little(head, 36, 4)
    if head.startswith(b"\x7fFLAC"):
        return _big(head, 27, 3) >> 4
    return 0


# MP3 and AAC (ADTS): every frame says its size, and how long it lasts.

_RATES_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_AAC_RATES = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)


def _mp3_frames() -> dict[int, tuple[int, int]]:
    """Bytes and nanoseconds by the second and third byte of a header, their last bits unset."""
    found = {}
    for version, (rates, samples, divisor) in {
        3: (_RATES_V1, 1152, 1),
        2: (_RATES_V2, 576, 2),
        0: (_RATES_V2, 576, 4),
    }.items():
        for index, kbits in enumerate(rates):
            for at, full in enumerate((44_100, 48_000, 32_000)):
                rate = full // divisor
                for padding in (0, 1):
                    key = (0xE2 | version << 3) << 8 | index << 4 | at << 2 | padding << 1
                    if kbits:
                        length = samples // 8 * kbits * 1000 // rate + padding
                        found[key] = (length, -(-samples * _S // rate))
    return found


_MP3_FRAMES = _mp3_frames()


def _frame(data: bytes, at: int) -> tuple[int, int] | None:
    """The bytes and nanoseconds of the frame that begins here, if one does."""
    if at + 7 > len(data) or data[at] != 0xFF:
        return None
    second, third = data[at + 1], data[at + 2]
    if second & 0xF6 == 0xF0:  # ADTS
        rate, length = third >> 2 & 15, _big(data, at + 3, 3) >> 5 & 0x1FFF
        if rate >= len(_AAC_RATES) or length < 7:
            return None
        return length, -(-1024 * ((data[at + 6] & 3) + 1) * _S // _AAC_RATES[rate])
    return _MP3_FRAMES.get((second & 0xFE) << 8 | third & 0xFE)


def _frames_ns(data: bytes) -> int:
    """All frames; what lies between them counts as unknown."""
    at, lasts, unknown, size = 0, 0, 0, len(data)
    for _ in range(FRAMES_MAX):
        if at >= size:
            break
        frame = _frame(data, at)
        if frame is not None:
            at += frame[0]
            lasts += frame[1]
            continue
        after = _next(data, b"\xff", at + 1)
        unknown, at = unknown + after - at, after
    return lasts + _unknown_ns(unknown + max(size - at, 0))


# MP4: the movie and its tracks say their lengths.


def _mp4_ns(data: bytes) -> int | None:
    lengths = []
    for name, start in islice(_boxes(data), BOXES_MAX):
        if name == b"mvex":  # in fragments, of which the header knows nothing
            return None
        if name in (b"mvhd", b"mdhd"):
            wide = data[start : start + 1] == b"\x01"
            at, width = (start + 20, 8) if wide else (start + 12, 4)
            scale, length = _big(data, at, 4), _big(data, at + 4, width)
            if not scale or length == (1 << 8 * width) - 1:
                return None
            lengths.append(-(-length * _S // scale))
    longest = max(lengths, default=0)
    return longest + _MP4_LEFT_OUT if longest else None


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Boxes as (name, where its content starts), those of the movie and its tracks too."""
    at, end = 0, len(data)
    while at + 8 <= end:
        size, name, start = _big(data, at, 4), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = _big(data, at + 8, 8), at + 16
        stop = at + size if size else end
        if stop < start:
            return
        yield name, start
        at = start if name in (b"moov", b"trak", b"mdia") else stop


# WebM: the header says the length, or else the last cluster when it begins.

_SEGMENT, _INFO, _CLUSTER = 0x18538067, 0x1549A966, 0x1F43B675
_SCALE, _DURATION, _TIMESTAMP = 0x2AD7B1, 0x4489, 0xE7
_CLUSTER_TICKS = 1 << 15  # a block's time is a 16-bit number from its cluster's


def _webm_ns(data: bytes) -> int | None:
    scale, ticks = _MS, 0.0
    for name, start, stop in islice(_elements(data, 0), BOXES_MAX):
        if name == _SCALE:
            scale = int.from_bytes(data[start : min(stop, start + 8)], "big")
        elif name == _DURATION and stop - start in (4, 8):
            (ticks,) = struct.unpack(">f" if stop - start == 4 else ">d", data[start:stop])
        elif name == _CLUSTER:
            break
    if ticks > 0 and math.isfinite(ticks) and scale:
        return math.ceil(ticks) * scale
    last = data.rfind(_CLUSTER.to_bytes(4, "big"))
    if last < 0 or not scale:
        return None
    for name, start, stop in islice(_elements(data, last), BOXES_MAX):
        if name == _TIMESTAMP:
            began = int.from_bytes(data[start : min(stop, start + 8)], "big")
            return (began + _CLUSTER_TICKS) * scale
    return None


def _elements(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Elements as (id, where its content starts, where it ends), with those of a segment, its
    information and its clusters."""
    end = len(data)
    while at < end:
        width = 9 - data[at].bit_length()
        name = _big(data, at, width)
        at += width
        if width > 4 or at >= end:
            return
        width = 9 - data[at].bit_length()
        if width > 8:
            return
        unknown = (1 << 7 * width) - 1
        size = _big(data, at, width) & unknown
        at += width
        stop = end if size == unknown else min(at + size, end)
        yield name, at, stop
        if name not in (_SEGMENT, _INFO, _CLUSTER):
            at = stop


def _next(data: bytes, mark: bytes, at: int) -> int:
    """Where the mark comes next, or else the end."""
    found = data.find(mark, at)
    return len(data) if found < 0 else found


def _big(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "big")


def _little(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "little")
