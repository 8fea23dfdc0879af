"""Bodies of OpenAI's answers for the tasks beyond chat (openai/openai-openapi): embeddings, images
and transcripts.
"""

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from app.api.explain import FIELD, explained
from app.gateway.call import Call
from plugins.contract import Usage
from plugins.tasks import Embeddings, Images, Media, Transcript

_encode = msgspec.json.Encoder().encode
TEXT = b"text/plain; charset=utf-8"
VTT = b"text/vtt; charset=utf-8"


def embeddings_body(call: Call, output: Embeddings, *, as_base64: bool) -> bytes:
    """One object per text; base64 is of little-endian 32-bit floats."""
    tokens = _read(call.usage)
    data = [
        {"object": "embedding", "index": at, "embedding": _base64(vector) if as_base64 else vector}
        for at, vector in enumerate(output.vectors)
    ]
    return _json(
        call,
        {
            "object": "list",
            "data": data,
            "model": call.offer.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
    )


def images_body(call: Call, output: Images, *, as_url: bool) -> bytes:
    """Each picture as it was made, bytes or URL; bytes as a ``data:`` URL where one is wanted."""
    body: dict[str, Any] = {"created": call.admitted_at_ms // 1000, "data": []}
    for at, picture in enumerate(output.images):
        item: dict[str, Any] = {}
        if picture.data is None:
            item["url"] = picture.url
        elif as_url:
            item["url"] = picture.url or _data_url(picture)
        else:
            item["b64_json"] = base64.b64encode(picture.data).decode()
        if at < len(output.revised_prompts) and output.revised_prompts[at]:
            item["revised_prompt"] = output.revised_prompts[at]
        body["data"].append(item)
    usage = call.usage
    if not usage.estimated and _read(usage) + usage.output_tokens:
        body["usage"] = _tokens(usage)
    kinds = {picture.media_type for picture in output.images}
    if len(kinds) == 1 and (kind := kinds.pop()) in ("image/png", "image/jpeg", "image/webp"):
        body["output_format"] = kind.removeprefix("image/")
    return _json(call, body)


def transcript_body(call: Call, output: Transcript, form: str) -> bytes:
    """The transcript as ``json``, ``verbose_json``, ``text``, ``srt`` or ``vtt``."""
    if form == "text":
        return f"{output.text}\n".encode()
    if form == "srt":
        cues = _cues(call, output, ",")
        return "".join(f"{at}\n{cue}\n\n" for at, cue in enumerate(cues, 1)).encode()
    if form == "vtt":
        return ("WEBVTT\n\n" + "".join(f"{cue}\n\n" for cue in _cues(call, output, "."))).encode()
    usage = call.usage
    if form == "json":
        body: dict[str, Any] = {"text": output.text}
        if usage.audio_ms:
            body["usage"] = _duration(usage)
        elif _read(usage) + usage.output_tokens:
            body["usage"] = {"type": "tokens", **_tokens(usage)}
        return _json(call, body)
    body = {
        "task": "transcribe",
        "language": output.language or "",
        "duration": output.duration_s or _length_s(call, output),
        "text": output.text,
    }
    if output.segments is not None:
        body["segments"] = output.segments
    if output.words is not None:
        body["words"] = output.words
    if usage.audio_ms:
        body["usage"] = _duration(usage)
    return _json(call, body)


def content_type_of(form: str) -> bytes:
    """The content type of a form of transcript."""
    if form == "vtt":
        return VTT
    return TEXT if form in ("text", "srt") else b"application/json"


def _json(call: Call, body: dict[str, Any]) -> bytes:
    if call.explain:
        body[FIELD] = explained(call)
    return _encode(body)


def _read(usage: Usage) -> int:
    return (
        usage.input_tokens
        + usage.cache_read_tokens
        + usage.cache_write_tokens
        + usage.audio_input_tokens
    )


def _tokens(usage: Usage) -> dict[str, Any]:
    read, made = _read(usage), usage.output_tokens + usage.reasoning_tokens
    body: dict[str, Any] = {
        "input_tokens": read,
        "output_tokens": made,
        "total_tokens": read + made,
    }
    if usage.audio_input_tokens:
        body["input_token_details"] = {
            "audio_tokens": usage.audio_input_tokens,
            "text_tokens": read - usage.audio_input_tokens,
        }
    return body


def _duration(usage: Usage) -> dict[str, Any]:
    return {"type": "duration", "seconds": usage.audio_ms / 1000}


def _base64(vector: Sequence[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def _data_url(picture: Media) -> str:
    kind = picture.media_type or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(picture.data or b'').decode()}"


def _length_s(call: Call, output: Transcript) -> float:
    """How long the sound is: as told, else up to the last segment, else as it was billed."""
    ends = [float(part["end"]) for part in output.segments or ()]
    return output.duration_s or max(ends, default=0.0) or call.usage.audio_ms / 1000


def _cues(call: Call, output: Transcript, point: str) -> list[str]:
    """Subtitles: a time range, and a line of text in which nothing can end the cue."""
    parts = output.segments or [{"start": 0.0, "end": _length_s(call, output), "text": output.text}]
    return [
        f"{_time(part['start'], point)} --> {_time(part['end'], point)}\n"
        + " ".join(str(part["text"]).split()).replace("-->", "->")
        for part in parts
    ]


def _time(seconds: float, point: str) -> str:
    """``00:00:00,000``; the sign before the milliseconds is the format's."""
    ms = round(seconds * 1000)
    whole = ms // 1000
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{ms % 1000:03}"
