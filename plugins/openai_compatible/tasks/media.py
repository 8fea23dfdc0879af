"""What bytes are: pictures and sound told by how they begin, and how long a sound is."""

import base64
import binascii

from plugins.contract import AdapterError, FailureKind, Fetch
from plugins.tasks import Media

URL_LENGTH_MAX = 8192
# Of sound whose length nobody says: 128 kbit/s, what MP3 files of speech mostly have.
_BYTES_PER_SECOND = 16_000
_VIDEO_MS_MAX = 86_400_000
_WAV_HEAD = 44
_RIFF_SIZE_MAX = 256

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
_SOUNDS = (
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"\x1aE\xdf\xa3", "audio/webm"),
)


def picture_type(data: bytes) -> str:
    """The media type of a picture, empty where it is none that we know."""
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] in (b"ftypavif", b"ftypheic", b"ftypmif1"):
        return "image/avif"
    return "image/svg+xml" if b"<svg" in data[:512] else ""


def sound_type(data: bytes) -> str:
    """The media type of sound, empty where it is none that we know (raw PCM has no beginning)."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "audio/wav"
    for beginning, kind in _SOUNDS:
        if data.startswith(beginning):
            return kind
    return ""


def length_ms(sound: Media) -> int:
    """How long a sound is: exact for WAV, else guessed from its size; at least a millisecond."""
    data = sound.data or b""
    per_second = _wav_bytes_per_second(data) if sound_type(data) == "audio/wav" else 0
    size = max(0, len(data) - _WAV_HEAD) if per_second else len(data)
    return max(1, size * 1000 // (per_second or _BYTES_PER_SECOND))


def _wav_bytes_per_second(data: bytes) -> int:
    """From the ``fmt `` chunk (RIFF: id, size, then format, channels, rate, bytes per second)."""
    at = data.find(b"fmt ", 12, _RIFF_SIZE_MAX)
    if at < 0 or len(data) < at + 20:
        return 0
    return int.from_bytes(data[at + 16 : at + 20], "little")


def video_ms(data: bytes) -> int:
    """The length of an MP4 video, from its ``mvhd`` box (ISO/IEC 14496-12, 8.2.2); 0 if unknown."""
    at = data.find(b"mvhd")
    if at < 0 or len(data) < at + 36:
        return 0
    box = data[at + 4 : at + 36]
    times = (12, 16, 20) if box[0] == 0 else (20, 24, 32)  # 32-bit times, or 64-bit ones
    scale = int.from_bytes(box[times[0] : times[1]], "big")
    length = int.from_bytes(box[times[1] : times[2]], "big")
    found = length * 1000 // scale if scale else 0
    return found if found <= _VIDEO_MS_MAX else 0


def from_base64(text: str) -> bytes | None:
    """Decode base64, with or without ``data:…;base64,`` before it; None for what is none."""
    if text.startswith("data:"):
        _, comma, text = text.partition(",")
        if not comma:
            return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def data_url(media: Media) -> str:
    """The bytes as a ``data:`` URL, or the URL of what has no bytes."""
    if media.data is None:
        return media.url or ""
    kind = media.media_type or picture_type(media.data) or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(media.data).decode()}"


def is_web_url(url: object) -> bool:
    """Whether a provider's URL can be handed on."""
    return (
        isinstance(url, str)
        and len(url) <= URL_LENGTH_MAX
        and url.startswith(("https://", "http://"))
        and url.isprintable()
        and " " not in url
    )


async def with_data(media: Media, fetch: Fetch) -> Media:
    """The caller's media with its bytes. Raises AdapterError (BAD_REQUEST)."""
    if media.data is not None:
        return media
    found = await fetch(media.url or "")
    found.name = found.name or media.name
    return found


async def fetched(url: str, fetch: Fetch) -> Media:
    """What the provider's answer names; that it cannot be read is the provider's fault."""
    try:
        return await fetch(url)
    except AdapterError as error:
        raise AdapterError(
            FailureKind.UPSTREAM,
            "the provider's result could not be fetched",
            detail=f"{error.message} {error.detail}",
        ) from error
