"""What HF Inference answers, task by task: pictures and speech as bytes, the rest as JSON.

Source: huggingface/huggingface_hub, ``inference/_client.py`` and ``inference/_generated/types``;
huggingface/api-inference-community, ``routes.py`` (``warnings``, FLAC, the headers).
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from plugins.contract import AdapterError, FailureKind, InferenceCall, Usage
from plugins.http import failures
from plugins.openai_compatible.tasks.media import length_ms, picture_type, sound_type
from plugins.openai_compatible.tasks.usage import tokens_of
from plugins.queued.measures import NULL
from plugins.queued.transcripts import heard_ms, transcript
from plugins.tasks import (
    EmbeddingRequest,
    Embeddings,
    ImageRequest,
    Images,
    Media,
    Output,
    Speech,
    SpeechRequest,
    TranscriptionRequest,
)

_TOKENS_MAX = 10_000_000
Header = Callable[[str], str | None]


class _Said(msgspec.Struct):
    error: Any = None
    warnings: Any = None
    text: str | None = None
    chunks: Raw = NULL


_vectors = msgspec.json.Decoder(list[list[float]])
_one_vector = msgspec.json.Decoder(list[float])
_said = msgspec.json.Decoder(_Said)


def read(body: bytes, header: Header, call: InferenceCall) -> tuple[Output, Usage]:
    """The output, and what of it was counted or can be told. Raises AdapterError."""
    request, key = call.request, call.api_key
    kind = (header("content-type") or "").partition(";")[0].strip().lower()
    if isinstance(request, EmbeddingRequest):
        return _embeddings(body, header, request, key)
    if isinstance(request, TranscriptionRequest):
        return _transcript(body, request, key)
    if kind == "application/json" or kind.startswith("text/"):
        _decode(body, key)
        raise failures.unreadable(f"content-type {kind}", body, key)
    if isinstance(request, ImageRequest):
        if not (found := picture_type(body)):
            raise failures.unreadable(f"no picture, content-type {kind}", b"", key)
        return Images(images=[Media(data=body, media_type=found)]), Usage(images=1)
    if isinstance(request, SpeechRequest):
        found = kind if kind.startswith("audio/") else sound_type(body)
        if not found or not body:
            raise failures.unreadable(f"no sound, content-type {kind}", b"", key)
        usage = Usage(characters=len(request.input))
        return Speech(audio=Media(data=body, media_type=found)), usage
    raise AdapterError(FailureKind.NOT_FOUND, "this provider does not serve this task")


def warnings_in(body: bytes) -> str:
    """What the provider warns of, for the log; empty where it does not."""
    try:
        found = _said.decode(body).warnings
    except failures.DECODE_ERRORS:
        return ""
    return failures.clean(str(found), None) if found else ""


def _embeddings(
    body: bytes, header: Header, request: EmbeddingRequest, key: str | None
) -> tuple[Embeddings, Usage]:
    """One vector per text. Models that do not pool give one per token, which is none of it."""
    wanted = len(request.texts())
    try:
        vectors = _vectors.decode(body)
    except failures.DECODE_ERRORS:
        vectors = [_alone(body, key)]
    if len(vectors) != wanted:
        raise failures.unreadable(f"{len(vectors)} vectors for {wanted} texts", b"", key)
    if len({len(each) for each in vectors}) != 1 or not vectors[0]:
        raise failures.unreadable("the vectors differ in length, or are empty", b"", key)
    if not all(math.isfinite(number) for each in vectors for number in each):
        raise failures.unreadable("a vector has numbers that are not finite", b"", key)
    told = header("x-compute-tokens") or ""
    if told.isascii() and told.isdigit() and 0 < int(told[:12]) <= _TOKENS_MAX:
        return Embeddings(vectors=vectors), Usage(input_tokens=int(told[:12]))
    guess = Usage(input_tokens=tokens_of(request.text_bytes()), estimated=True)
    return Embeddings(vectors=vectors), guess


def _alone(body: bytes, key: str | None) -> list[float]:
    """The vector of one text, as some models give it; an error is raised."""
    try:
        return _one_vector.decode(body)
    except failures.DECODE_ERRORS as error:
        if body.lstrip()[:1] == b"{":
            _decode(body, key)
        raise failures.unreadable(error, body, key) from error


def _transcript(
    body: bytes, request: TranscriptionRequest, key: str | None
) -> tuple[Output, Usage]:
    found = _decode(body, key)
    if found.text is None:
        raise failures.unreadable("no text", body, key)
    levels = request.timestamp_granularities
    words = isinstance(levels, list) and "word" in levels
    output = transcript(found.text, found.chunks, parts_are_words=words)
    told = heard_ms(output)
    if told:
        return output, Usage(audio_ms=told)
    return output, Usage(audio_ms=length_ms(request.file), estimated=True)


def _decode(body: bytes, key: str | None) -> _Said:
    """A JSON object; an error that came with status 200 is raised."""
    try:
        found: _Said = _said.decode(body)
    except failures.DECODE_ERRORS as error:
        raise failures.unreadable(error, body, key) from error
    if found.error:
        raise failures.error_in_answer(_text_of(found.error), key)
    return found


def _text_of(error: Any) -> str:
    return "; ".join(map(str, error)) if isinstance(error, list) else str(error)
