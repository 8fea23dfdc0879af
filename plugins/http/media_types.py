"""What bytes are, by how they begin, and whether that is what they are said to be.

Marks are those of the WHATWG's MIME Sniffing standard (section 6), and of the formats' own
specifications for what it lacks.
"""

# The names of each format; the first is the one that is used.
_NAMES: dict[str, tuple[str, ...]] = {
    "png": ("image/png", "image/apng", "image/x-png"),
    "jpeg": ("image/jpeg", "image/jpg", "image/pjpeg"),
    "gif": ("image/gif",),
    "webp": ("image/webp",),
    "avif": ("image/avif",),
    "heif": ("image/heic", "image/heif"),
    "wav": ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
    "mp3": ("audio/mpeg", "audio/mp3", "audio/mpeg3", "audio/x-mpeg"),
    "ogg": ("audio/ogg", "video/ogg", "application/ogg", "audio/opus"),
    "flac": ("audio/flac", "audio/x-flac"),
    "mp4": ("video/mp4", "audio/mp4", "audio/x-m4a", "audio/m4a", "video/quicktime"),
    "webm": ("video/webm", "audio/webm", "video/x-matroska", "audio/x-matroska"),
    "pdf": ("application/pdf",),
}
# Containers of which only their sender knows whether there is a picture in them.
_CONTAINERS = frozenset({"heif", "ogg", "mp4", "webm"})
_CLAIMS = frozenset(name for names in _NAMES.values() for name in names)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<iframe")


class NotWhatItSays(Exception):
    """The bytes are not of the type that they came with; the message says it to the caller."""


def media_type(data: bytes, said: str) -> str:
    """The media type of ``data`` that came as ``said`` (a Content-Type, may be empty).

    The bytes decide: a picture, sound, video or PDF is what it begins like, and a name is believed
    only for formats that cannot be told. Empty where nothing is known. Raises NotWhatItSays for
    pages of HTML, and for what is said to be a known format and is not.
    """
    named = said.partition(";")[0].strip().lower()
    form = _form(data)
    if form is not None:
        names = _NAMES[form]
        return named if form in _CONTAINERS and named in names else names[0]
    if data[:512].lstrip().lower().startswith(_HTML) or named in (
        "text/html",
        "application/xhtml+xml",
    ):
        raise NotWhatItSays("it is a page of HTML, not a file")
    if named in _CLAIMS:
        raise NotWhatItSays(f"its content is not {named}")
    return "" if named == "application/octet-stream" else named


def _form(data: bytes) -> str | None:
    for mark, form in _MARKS:
        if data.startswith(mark):
            return form
    if data[:4] == b"RIFF":
        return {b"WEBP": "webp", b"WAVE": "wav"}.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "mp4")
    # MPEG audio, layers 1 to 3: eleven bits of sync, a layer, a bit rate and a sample rate.
    if len(data) > 3 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        layer, rates = data[1] >> 1 & 3, data[2]
        if layer and rates >> 4 not in (0, 15) and rates >> 2 & 3 != 3:
            return "mp3"
    return None


_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heif", b"heix": "heif", b"mif1": "heif"}
_MARKS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"ID3", "mp3"),
    (b"OggS\x00", "ogg"),
    (b"fLaC", "flac"),
    (b"\x1aE\xdf\xa3", "webm"),
    (b"%PDF-", "pdf"),
)
