"""Pictures and sounds that a caller names by URL, for servers of one's own.

Such a server would read the URL itself, from inside the network that it stands in (vLLM, SGLang,
llama-server), or not at all (Ollama takes base64 only, docs/openai.md). So the data itself is sent.
"""

import base64
from typing import Any

import msgspec

from plugins.chat import Message, Object
from plugins.contract import AdapterError, FailureKind, Fetch, InferenceCall

_KINDS = ("image_url", "video_url", "audio_url")


async def inlined(call: InferenceCall, fetch: Fetch) -> InferenceCall:
    """The call itself where it names no URL, else one with data in their place.

    Raises AdapterError (BAD_REQUEST) for a URL that may not be read, or is of another scheme.
    """
    if not any(_names_url(message) for message in call.chat.messages):
        return call
    messages = [await _inlined(message, fetch) for message in call.chat.messages]
    request = msgspec.structs.replace(call.chat, messages=messages)
    return msgspec.structs.replace(call, request=request)


def _names_url(message: Message) -> bool:
    content = message.content
    return isinstance(content, list) and any(_url_of(part) is not None for part in content)


async def _inlined(message: Message, fetch: Fetch) -> Message:
    if not isinstance(message.content, list):
        return message
    parts = [await _part(part, fetch) for part in message.content]
    return msgspec.structs.replace(message, content=parts)


async def _part(part: Object, fetch: Fetch) -> Object:
    url = _url_of(part)
    if url is None:
        return part
    if url.partition(":")[0].lower() not in ("http", "https"):
        raise AdapterError(
            FailureKind.BAD_REQUEST, "only http, https and data URLs are read", param="messages"
        )
    media = await fetch(url)
    kind = part["type"]
    data = base64.b64encode(media.data or b"").decode()
    held = part[kind] if isinstance(part[kind], dict) else {}
    return {**part, kind: {**held, "url": f"data:{media.media_type};base64,{data}"}}


def _url_of(part: Any) -> str | None:
    """The URL of a part, where it has one that is not the data itself."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _KINDS:
        return None
    held = part.get(kind)
    url = held.get("url") if isinstance(held, dict) else held
    return url if isinstance(url, str) and url[:5].lower() != "data:" else None
