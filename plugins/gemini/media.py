"""Pictures, sound, videos and files as Gemini takes them: their bytes, inside the request."""

import base64
from typing import Any

from plugins.chat import Object
from plugins.contract import AdapterError, FailureKind, Fetch
from plugins.openai_compatible.tasks.media import from_base64, sound_type
from plugins.tasks import Media

_SOUNDS = {
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "m4a": "audio/m4a",
    "aiff": "audio/aiff",
}


def refused(where: str, why: str) -> AdapterError:
    """The caller's mistake in a message; ``where`` leads to it."""
    return AdapterError(FailureKind.BAD_REQUEST, f"{where}: {why}", param="messages")


async def part_of(part: Object, where: str, fetch: Fetch) -> Object:
    """A canonical part that is not text, as ``inlineData``. Raises AdapterError (BAD_REQUEST)."""
    kind = part.get("type")
    if kind == "image_url":
        return inline(await _read(_url_in(part, kind), where, fetch, "image/"), where)
    if kind == "video_url":
        return inline(await _read(_url_in(part, kind), where, fetch, "video/"), where)
    if kind == "input_audio":
        return inline(_sound(part.get("input_audio"), where), where)
    if kind == "file":
        file = part.get("file")
        if not isinstance(file, dict) or "file_data" not in file:
            raise refused(where, "expected file.file_data: files are not kept here")
        return inline(await _read(file["file_data"], where, fetch, ""), where)
    raise refused(where, f"parts of type {str(kind)[:64]!r} are not read by this provider")


def inline(media: Media, where: str) -> Object:
    """The bytes with their media type, which must be known."""
    if not media.data:
        raise refused(where, "it is empty")
    if not media.media_type:
        raise refused(where, "its media type is not known")
    data = base64.b64encode(media.data).decode()
    return {"inlineData": {"mimeType": media.media_type, "data": data}}


async def _read(url: Any, where: str, fetch: Fetch, wanted: str) -> Media:
    """What a URL of the caller's holds. Only ``data:`` and ``http(s):`` are read: a provider's own
    scheme (``gs:``) would be opened with the operator's rights, not the caller's."""
    if not isinstance(url, str) or url.partition(":")[0].lower() not in ("data", "http", "https"):
        raise refused(where, "expected a data:, https: or http: URL")
    try:
        found = await fetch(url)
    except AdapterError as error:
        raise AdapterError(
            error.kind, f"{where}: {error.message}"[:512], detail=error.detail, param="messages"
        ) from error
    if not found.media_type.startswith(wanted):
        raise refused(where, f"expected {wanted}*, found {found.media_type or 'an unknown type'}")
    return found


def _url_in(part: Object, kind: str) -> Any:
    said = part.get(kind)
    return said.get("url") if isinstance(said, dict) else said


def _sound(said: Any, where: str) -> Media:
    given = said.get("data") if isinstance(said, dict) else None
    data = from_base64(given) if isinstance(given, str) else None
    if data is None:
        raise refused(where, "expected input_audio with base64 data and a format")
    kind = sound_type(data) or _SOUNDS.get(str(said.get("format")), "")
    return Media(data=data, media_type=kind)
