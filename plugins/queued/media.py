"""Pictures, sounds and videos on their way to a provider, and on their way back."""

import base64
from contextlib import suppress
from urllib.parse import urlsplit

from msgspec.structs import replace

from plugins.contract import AdapterError, FailureKind, Fetch
from plugins.http.client import ANSWER_BYTES_MAX
from plugins.http.media_types import NotWhatItSays
from plugins.http.media_types import media_type as sniffed
from plugins.http.urls import BadUrl, is_data, read_data, read_url
from plugins.queued.work import unreadable
from plugins.tasks import ImageRequest, Media, Request, TranscriptionRequest, VideoRequest

IMAGE_TYPE = "image/jpeg"
AUDIO_TYPE = "audio/mpeg"
_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
}


def base64_of(media: Media) -> str:
    """The bytes as base64."""
    return base64.b64encode(media.data or b"").decode()


def data_url(media: Media, usual_type: str) -> str:
    """The bytes as a data URL; ``usual_type`` is put where nothing tells the media type."""
    kind = media.media_type
    if not kind:
        with suppress(NotWhatItSays):
            kind = sniffed(media.data or b"", "")
    return f"data:{kind or usual_type};base64,{base64_of(media)}"


async def with_bytes(request: Request, fetch: Fetch) -> Request:
    """The request with the bytes of all its media; those that only have a URL are fetched.

    Raises AdapterError (BAD_REQUEST) for the caller's URLs.
    """
    if isinstance(request, ImageRequest):
        if isinstance(request.image, list):
            images = [await _with_bytes(each, fetch) for each in request.image]
            request = replace(request, image=images)
        if isinstance(request.mask, Media):
            request = replace(request, mask=await _with_bytes(request.mask, fetch))
    elif isinstance(request, VideoRequest) and isinstance(request.input_reference, Media):
        reference = await _with_bytes(request.input_reference, fetch)
        request = replace(request, input_reference=reference)
    elif isinstance(request, TranscriptionRequest):
        request = replace(request, file=await _with_bytes(request.file, fetch))
    return request


async def _with_bytes(media: Media, fetch: Fetch) -> Media:
    if media.data is not None or media.url is None:
        return media
    fetched = await fetch(media.url)
    return replace(media, data=fetched.data, media_type=media.media_type or fetched.media_type)


async def with_result_bytes(media: Media, fetch: Fetch) -> Media:
    """A provider's result with its bytes. What goes wrong is not the caller's fault."""
    if media.data is not None or media.url is None:
        return media
    try:
        fetched = await fetch(media.url)
    except AdapterError as error:
        raise AdapterError(
            FailureKind.UPSTREAM,
            "the provider's result could not be fetched",
            detail=f"{error.message} {error.detail}",
        ) from error
    return replace(media, data=fetched.data, media_type=fetched.media_type or media.media_type)


def result(found: object, media_type: object = "") -> Media:
    """What a provider names as a result: a URL of the web, or a ``data:`` URL with bytes in it.

    The URL may be shown to the client, so it is held to what is read here. Raises AdapterError.
    """
    if not isinstance(found, str):
        raise unreadable(f"a result of type {type(found).__name__}")
    kind = media_type if isinstance(media_type, str) and len(media_type) <= 100 else ""
    try:
        if is_data(found):
            named, data = read_data(found, ANSWER_BYTES_MAX)
            return Media(data=data, media_type=kind or named)
        read_url(found)
    except BadUrl as error:
        raise unreadable(f"a result's URL: {error}") from error
    ending = urlsplit(found).path.rpartition(".")[2].lower()
    return Media(url=found, media_type=kind or _TYPES.get(ending, ""))
