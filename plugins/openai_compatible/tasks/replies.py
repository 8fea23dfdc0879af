"""What comes back: a task's output and its usage, read with the distrust that a stranger is due.

A reply that is not what was asked for is a failure (PROTOCOL), never passed on: too few vectors,
no picture, a page of HTML in place of sound.
"""

import math
import sys
from array import array
from typing import Any

import msgspec
from msgspec import Raw

from plugins.chat import Object
from plugins.contract import Usage
from plugins.http import failures
from plugins.http.client import Exchange
from plugins.openai_compatible.tasks import media
from plugins.openai_compatible.tasks.requests import inputs_of
from plugins.openai_compatible.tasks.usage import NULL, milliseconds, reported, tokens_of
from plugins.tasks import (
    EmbeddingRequest,
    Embeddings,
    ImageRequest,
    Images,
    Media,
    Speech,
    SpeechRequest,
    Transcript,
    TranscriptionRequest,
)

_FLOAT32_MAX = 3.4028234663852886e38
_PARTS_MAX = 100_000
_SECONDS_MAX = 1_000_000
_PROMPT_LENGTH_MAX = 32_000
_SOUND_OF = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class _Reply(msgspec.Struct):
    """What every JSON reply may have."""

    id: str | None = None
    object: Any = None
    usage: Raw = NULL
    error: Any = None
    message: Any = None  # the error's text where ``object`` is ``error``


class _Vector(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _VectorsReply(_Reply):
    data: list[_Vector] | None = None


class _Picture(msgspec.Struct):
    b64_json: str | None = None
    url: str | None = None
    image: str | None = None  # Hyperbolic's name for the base64
    revised_prompt: str | None = None


class _PicturesReply(_Reply):
    data: list[_Picture] | None = None
    images: list[_Picture] | None = None


class _TranscriptReply(_Reply):
    text: str | None = None
    language: str | None = None
    duration: float | str | None = None
    segments: list[Object] | None = None
    words: list[Object] | None = None


_vectors = msgspec.json.Decoder(_VectorsReply)
_pictures = msgspec.json.Decoder(_PicturesReply)
_transcript = msgspec.json.Decoder(_TranscriptReply)
_anything = msgspec.json.Decoder(_Reply)


def read_embeddings(
    body: bytes, request: EmbeddingRequest, key: str | None
) -> tuple[Embeddings, Usage]:
    """One vector per text, all of one length, of finite 32-bit numbers."""
    reply = decode(_vectors, body, key)
    found, wanted = reply.data or [], inputs_of(request)
    if len(found) != wanted:
        raise failures.unreadable(f"{len(found)} vectors for {wanted} texts", b"", key)
    if any(each.index is not None for each in found):
        found = sorted(found, key=lambda each: -1 if each.index is None else each.index)
        if [each.index for each in found] != list(range(wanted)):
            raise failures.unreadable("the vectors' indexes are wrong", b"", key)
    vectors = [_numbers(each.embedding, key) for each in found]
    if len({len(each) for each in vectors}) != 1:
        raise failures.unreadable("the vectors differ in length", b"", key)
    usage = reported(reply.usage) or Usage(input_tokens=_tokens_in(request), estimated=True)
    return Embeddings(vectors=vectors), msgspec.structs.replace(usage, output_tokens=0)


def read_images(
    body: bytes, kind: str, request: ImageRequest, key: str | None
) -> tuple[Images, Usage]:
    """The pictures, at most as many as were asked for; more are neither passed on nor counted."""
    if kind.startswith("image/"):  # the picture itself
        found, usage = [_Picture()], None
        images = [_picture_of(body, key)]
    else:
        reply = decode(_pictures, body, key)
        found = (reply.data or reply.images or [])[: request.answers()]
        images = [_picture(each, key) for each in found]
        usage = reported(reply.usage)
    if not images:
        raise failures.unreadable("no pictures", body, key)
    revised = [
        each.revised_prompt[:_PROMPT_LENGTH_MAX] if each.revised_prompt else None for each in found
    ]
    usage = usage or Usage(input_tokens=tokens_of(request.text_bytes()), estimated=True)
    usage = msgspec.structs.replace(usage, images=len(images))
    return Images(images=images, revised_prompts=revised if any(revised) else []), usage


def read_speech(
    body: bytes, kind: str, request: SpeechRequest, key: str | None
) -> tuple[Speech, Usage]:
    """The sound. Its characters are what most providers bill; the tokens are a guess for others."""
    if kind == "application/json" or (kind.startswith("text/") and body):
        decode(_anything, body, key)  # raises the error that is in it
        raise failures.unreadable(f"content-type {kind}", body, key)
    told = kind if kind.startswith("audio/") else ""
    found = told or media.sound_type(body)
    if not found and kind in ("", "application/octet-stream", "binary/octet-stream"):
        found = _SOUND_OF[request.response_format or "mp3"]
    if not found or not body:
        raise failures.unreadable(f"content-type {kind}, {len(body)} bytes", b"", key)
    usage = Usage(
        input_tokens=tokens_of(request.text_bytes()),
        characters=len(request.input),
        estimated=True,
    )
    return Speech(audio=Media(data=body, media_type=found)), usage


def read_transcript(
    body: bytes, kind: str, request: TranscriptionRequest, key: str | None
) -> tuple[Transcript, Usage]:
    """The text, with its parts where they make sense."""
    reply = decode(_transcript, body, key)
    if reply.text is None:
        raise failures.unreadable(f"no text, content-type {kind}", body, key)
    duration = _seconds(reply.duration)
    transcript = Transcript(
        text=reply.text,
        language=reply.language[:64] if reply.language else None,
        duration_s=duration,
        segments=_parts(reply.segments, "text"),
        words=_parts(reply.words, "word"),
    )
    usage = reported(reply.usage)
    if usage is None and duration:
        usage = Usage(audio_ms=milliseconds(duration))
    if usage is None:
        usage = Usage(
            audio_ms=media.length_ms(request.file),
            output_tokens=tokens_of(len(reply.text.encode())),
            estimated=True,
        )
    return transcript, usage


def check_head(exchange: Exchange, body: bytes, key: str | None) -> None:
    """Raise the failure that a status other than 2xx stands for, and refuse an encoded answer."""
    if not 200 <= exchange.status < 300:
        raise failures.refusal(exchange.status, exchange.header, body, key)
    exchange.check_plain()


def decode(decoder: Any, body: bytes, key: str | None) -> Any:
    """A JSON reply; an error that came with status 200 is raised."""
    try:
        reply = decoder.decode(body)
    except failures.DECODE_ERRORS as error:
        raise failures.unreadable(error, body, key) from error
    if reply.error or reply.object == "error":
        raise failures.error_in_answer(reply.error or reply.message, key)
    return reply


def _numbers(found: list[float] | str, key: str | None) -> list[float]:
    """One vector. JSON has no NaN and msgspec refuses infinities, but base64 can hold both."""
    if isinstance(found, str):
        data = media.from_base64(found)
        if data is None or len(data) % 4:
            raise failures.unreadable("a vector is not base64 of 32-bit numbers", b"", key)
        numbers = array("f", data)
        if sys.byteorder == "big":
            numbers.byteswap()
        vector = numbers.tolist()
        good = bool(vector) and math.isfinite(sum(vector))
    else:
        vector = found
        good = bool(vector) and min(vector) >= -_FLOAT32_MAX and max(vector) <= _FLOAT32_MAX
    if not good:
        raise failures.unreadable("a vector is empty or not finite", b"", key)
    return vector


def _tokens_in(request: EmbeddingRequest) -> int:
    """Tokens of the input: counted where it came as tokens, else guessed from its bytes."""
    counted = 0
    if not isinstance(request.input, str):
        for each in request.input:
            counted += 1 if isinstance(each, int) else len(each) if isinstance(each, list) else 0
    return counted or max(1, tokens_of(request.text_bytes()))


def _picture(found: _Picture, key: str | None) -> Media:
    text = found.b64_json or found.image
    if not text and found.url and found.url.startswith("data:"):
        text = found.url
    if text:
        data = media.from_base64(text)
        if data is None:
            raise failures.unreadable("a picture is not base64", b"", key)
        return _picture_of(data, key)
    if not media.is_web_url(found.url):
        raise failures.unreadable("a picture has neither bytes nor a URL", b"", key)
    return Media(url=found.url)


def _picture_of(data: bytes, key: str | None) -> Media:
    kind = media.picture_type(data)
    if not kind:
        raise failures.unreadable("not a picture", data[:64], key)
    return Media(data=data, media_type=kind)


def _seconds(found: float | str | None) -> float | None:
    """A length in seconds; OpenAI's own was a string for a while."""
    try:
        seconds = float(found) if found is not None else 0.0
    except ValueError:
        return None
    return seconds if 0 < seconds <= _SECONDS_MAX else None


def _parts(found: list[Object] | None, word: str) -> list[Object] | None:
    """Segments or words that have a text and run forwards in time; None where any is bad."""
    if not found or len(found) > _PARTS_MAX:
        return None
    for part in found:
        start, end = part.get("start"), part.get("end")
        if not isinstance(part.get(word), str) or not _is_time(start) or not _is_time(end):
            return None
    return found


def _is_time(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= _SECONDS_MAX
    )
