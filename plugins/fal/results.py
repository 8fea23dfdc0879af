"""What fal's endpoints answer, task by task."""

from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from plugins.contract import AdapterError, InferenceCall, Usage
from plugins.http.failures import DECODE_ERRORS
from plugins.queued import refusals
from plugins.queued.measures import NULL, ms_of_seconds, ns_of_seconds
from plugins.queued.media import result
from plugins.queued.transcripts import heard_ms, transcript
from plugins.queued.work import Answer, Reply, unreadable
from plugins.tasks import (
    ImageRequest,
    Images,
    Media,
    Speech,
    SpeechRequest,
    TranscriptionRequest,
    Video,
    VideoRequest,
)


class _File(msgspec.Struct):
    url: str
    content_type: str | None = None
    duration: Raw = NULL


class _Timings(msgspec.Struct):
    inference: Raw = NULL


class _Result(msgspec.Struct):
    images: list[_File] | None = None
    image: _File | None = None
    video: _File | None = None
    audio: _File | None = None
    text: str | None = None
    chunks: Raw = NULL
    inferred_languages: Any = None
    has_nsfw_concepts: Any = None
    timings: Raw = NULL


_result = msgspec.json.Decoder(_Result)
_timings = msgspec.json.Decoder(_Timings | None)


def answer_of(reply: Reply, call: InferenceCall, usage: Usage) -> Answer | AdapterError:
    """The answer that a good reply holds. Raises AdapterError for one that cannot be read.

    ``usage`` is what the queue told; where it told no time, the model's own timings are taken.
    """
    found: _Result = refusals.decoded(_result, reply, call.api_key)
    request = call.request
    if not usage.compute_ns:
        usage = replace(usage, compute_ns=_timed_ns(found.timings))
    if isinstance(request, ImageRequest):
        return _pictures(found, request, call, usage)
    if isinstance(request, VideoRequest):
        length_ms = 0 if found.video is None else ms_of_seconds(found.video.duration)
        if not length_ms and isinstance(request.seconds, str):
            length_ms = int(request.seconds) * 1000
        return Answer(Video(video=_media(found.video)), replace(usage, video_ms=length_ms))
    if isinstance(request, SpeechRequest):
        usage = replace(usage, characters=len(request.input))
        return Answer(Speech(audio=_media(found.audio)), usage)
    if isinstance(request, TranscriptionRequest):
        return _transcribed(found, request, usage)
    raise unreadable("a result of a task that was not asked for")


def _pictures(
    found: _Result, request: ImageRequest, call: InferenceCall, usage: Usage
) -> Answer | AdapterError:
    """Pictures without those that the safety checker blackened; they cost all the same."""
    files = found.images if found.images is not None else [found.image] if found.image else []
    if not files:
        raise unreadable("a result without pictures")
    usage = replace(usage, images=min(len(files), request.answers()))
    flags = found.has_nsfw_concepts if isinstance(found.has_nsfw_concepts, list) else []
    good = [file for n, file in enumerate(files) if n >= len(flags) or flags[n] is not True]
    if not good:
        return refusals.moderated("the safety checker found it unsafe", call.api_key, usage)
    return Answer(Images(images=[_media(file) for file in good[: request.answers()]]), usage)


def _transcribed(found: _Result, request: TranscriptionRequest, usage: Usage) -> Answer:
    if found.text is None:
        raise unreadable("a transcript without text")
    languages = found.inferred_languages
    first = languages[0] if isinstance(languages, list) and languages else None
    levels = request.timestamp_granularities
    output = transcript(
        found.text,
        found.chunks,
        language=first if isinstance(first, str) else None,
        parts_are_words=isinstance(levels, list) and levels[:1] == ["word"],
    )
    return Answer(output, replace(usage, audio_ms=heard_ms(output)))


def _media(file: _File | None) -> Media:
    if file is None:
        raise unreadable("a result without the file")
    return result(file.url, file.content_type)


def _timed_ns(timings: Raw) -> int:
    try:
        found = _timings.decode(timings)
    except DECODE_ERRORS:
        return 0
    return 0 if found is None else ns_of_seconds(found.inference)
