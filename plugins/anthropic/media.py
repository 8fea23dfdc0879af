"""Pictures and documents that come inside a message or behind a URL."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any

from plugins.contract import AdapterError, FailureKind
from plugins.tasks import Media

_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)

Fetch = Callable[[str], Awaitable[Media]]


def refused(where: str, why: str) -> AdapterError:
    """The caller's mistake in a message; ``where`` leads to it."""
    return AdapterError(FailureKind.BAD_REQUEST, f"{where}: {why}", param="messages")


async def read(url: Any, where: str, fetch: Fetch, *, leave_https: bool) -> Media:
    """What a URL of the caller's holds, or with ``leave_https`` the URL, for the provider to read.

    Only ``data:`` and ``http(s):`` are read: a provider's own scheme (``s3:``) would be opened with
    the operator's rights, not the caller's. Raises AdapterError (BAD_REQUEST).
    """
    if not isinstance(url, str):
        raise refused(where, "expected a URL")
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        return _from_data_url(url, where)
    if scheme == "https" and leave_https:
        return Media(url=url)
    if scheme in ("http", "https"):
        return await fetch(url)
    raise refused(where, "expected a data:, https: or http: URL")


def as_picture(media: Media, where: str) -> Media:
    """The same with the media type that its first bytes show: providers refuse a wrong label."""
    data = media.data
    if data is None:
        return media
    for start, media_type in _PICTURES:
        if data.startswith(start):
            return Media(data=data, media_type=media_type)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Media(data=data, media_type="image/webp")
    raise refused(where, "not a PNG, JPEG, GIF or WebP picture")


def _from_data_url(url: str, where: str) -> Media:
    head, comma, body = url[5:].partition(",")
    media_type, *options = (part.strip().lower() for part in head.split(";"))
    if not comma or "base64" not in options:
        raise refused(where, "expected data:<media type>;base64,<data>")
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refused(where, "its data is not base64") from error
    if not data:
        raise refused(where, "it is empty")
    return Media(data=data, media_type=media_type)
