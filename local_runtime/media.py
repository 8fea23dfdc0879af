"""The pictures of a chat as bytes: taken out of its messages, or read from where these point.

``data:`` URLs are decoded here; http and https ones are read by the host's ``Fetch`` alone, which
goes to no address that it should not. Nothing else is read, files least of all. What remains in the
message is the part without its URL, to say where the picture stands. Whether the bytes are a
picture is for the engine's process to find out.
"""

import asyncio
import base64
import binascii
from typing import NoReturn

import msgspec

from plugins.chat import ChatRequest, Message, Object
from plugins.contract import AdapterError, FailureKind, Fetch

PICTURES_MAX = 32
BYTES_MAX = 20 * 1024 * 1024
# All pictures of a request: they go to the engine in one frame, with the text.
BYTES_TOGETHER_MAX = 40 * 1024 * 1024
_SECONDS_MAX = 30.0
_DECODED_AT_ONCE_MAX = 256 * 1024


async def pictures_of(chat: ChatRequest, fetch: Fetch | None) -> tuple[ChatRequest, list[bytes]]:
    """The chat without the data in it, and its pictures in the order of their parts.

    Raises AdapterError (BAD_REQUEST), which names the part. ``fetch`` None: URLs are refused.
    """
    media: list[bytes] = []
    messages: list[Message] = []
    try:
        async with asyncio.timeout(_SECONDS_MAX):
            for at, message in enumerate(chat.messages):
                messages.append(await _without_data(message, f"messages[{at}]", fetch, media))
    except TimeoutError:
        _refuse("messages", f"its pictures could not be fetched within {_SECONDS_MAX:.0f} s.")
    return (msgspec.structs.replace(chat, messages=messages) if media else chat), media


async def _without_data(
    message: Message, place: str, fetch: Fetch | None, media: list[bytes]
) -> Message:
    if not isinstance(message.content, list):
        return message
    parts: list[Object] = []
    for at, part in enumerate(message.content):
        if part.get("type") != "image_url":
            parts.append(part)
            continue
        where = f"{place}.content[{at}]"
        if len(media) == PICTURES_MAX:
            _refuse(where, f"at most {PICTURES_MAX} pictures are read.")
        media.append(await _bytes_of(_url_of(part, where), where, fetch))
        if sum(map(len, media)) > BYTES_TOGETHER_MAX:
            _refuse(where, f"all pictures together have more than {BYTES_TOGETHER_MAX >> 20} MiB.")
        parts.append({"type": "image_url"})
    return msgspec.structs.replace(message, content=parts)


def _url_of(part: Object, where: str) -> str:
    """Its URL: ``{"image_url": {"url": ...}}``, or the URL alone, as some clients send it."""
    held = part.get("image_url")
    url = held.get("url") if isinstance(held, dict) else held
    if not isinstance(url, str) or not url:
        _refuse(where, "image_url must be an object with a url.")
    return url


async def _bytes_of(url: str, where: str, fetch: Fetch | None) -> bytes:
    scheme = url[:6].partition(":")[0].lower()
    if scheme == "data":
        if len(url) > _DECODED_AT_ONCE_MAX:
            return await asyncio.to_thread(_decoded, url, where)
        return _decoded(url, where)
    if scheme not in ("http", "https") or fetch is None:
        kinds = "only data: URLs are" if fetch is None else "only https:, http: and data: URLs are"
        _refuse(where, f"{kinds} read.")
    try:
        found = await fetch(url)
    except AdapterError as error:
        raise AdapterError(
            error.kind, f"{where}: {error.message}", detail=error.detail, param="messages"
        ) from error
    return found.data or b""


def _decoded(url: str, where: str) -> bytes:
    head, comma, text = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        _refuse(where, "a data: URL must be of the form data:image/png;base64,DATA.")
    if len(text) > BYTES_MAX * 4 // 3 + 4:
        _refuse(where, f"the picture has more than {BYTES_MAX >> 20} MiB.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _refuse(where, "the data: URL is not valid base64.")


def _refuse(where: str, message: str) -> NoReturn:
    raise AdapterError(FailureKind.BAD_REQUEST, f"{where}: {message}", param="messages")
