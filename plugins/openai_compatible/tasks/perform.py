"""One task's attempt at an OpenAI-compatible provider, from the request to its usage."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from plugins.contract import (
    AdapterError,
    Event,
    FailureKind,
    Fetch,
    InferenceCall,
    Produced,
    Started,
    Usage,
    UsageReport,
)
from plugins.http import failures
from plugins.http.client import Client, Exchange
from plugins.openai_compatible.compute import seconds_max, with_compute
from plugins.openai_compatible.tasks import media, replies, videos
from plugins.openai_compatible.tasks.dialects import PLAIN, Dialect
from plugins.openai_compatible.tasks.requests import Headers, request_of
from plugins.tasks import (
    EmbeddingRequest,
    ImageRequest,
    Images,
    Output,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)


async def perform(
    client: Client,
    call: InferenceCall,
    *,
    fetch: Fetch,
    headers: Headers = (),
    dialect: Dialect = PLAIN,
    id_header: str = "",
) -> AsyncGenerator[Event, None]:
    """Carry out a call of any task but chat; the events are those of ``plugins.contract``.

    ``headers`` carry the key and what else the provider wants with every request. ``id_header`` is
    the lower-case name of the header by which the provider names the call, where its cost is asked
    for later: ``Started`` then comes as soon as the headers have.
    """
    began = asyncio.get_running_loop().time()
    by = began + min(call.first_event_s, seconds_max(call))
    if isinstance(call.request, VideoRequest):
        job = videos.VideoJob(client, call, dialect.videos, headers, fetch)
        async with aclosing(job.make(call.request, began + seconds_max(call))) as events:
            async for event in events:
                if isinstance(event, UsageReport):
                    yield UsageReport(with_compute(event.usage, call, None, began))
                else:
                    yield event
        return
    request = await request_of(call, dialect, headers, fetch)
    silence_s = max(call.first_event_s, call.idle_s)
    if id_header:
        exchange = await client.stream(request, by=by, silence_s=silence_s)
        try:
            if 200 <= exchange.status < 300:
                yield Started(exchange.id_in(id_header))
            body = await exchange.read_all(by)
        finally:
            await exchange.close()
    else:
        exchange, body = await client.fetch(request, by=by, silence_s=silence_s)
    replies.check_head(exchange, body, call.api_key)
    output, usage = _read(body, _kind_of(exchange), call)
    if isinstance(output, Images):
        await _complete(output, call, fetch)
    if not id_header:
        yield Started()
    yield Produced(output)
    yield UsageReport(with_compute(usage, call, exchange, began))


def _read(body: bytes, kind: str, call: InferenceCall) -> tuple[Output, Usage]:
    request, key = call.request, call.api_key
    if isinstance(request, EmbeddingRequest):
        return replies.read_embeddings(body, request, key)
    if isinstance(request, ImageRequest):
        return replies.read_images(body, kind, request, key)
    if isinstance(request, SpeechRequest):
        return replies.read_speech(body, kind, request, key)
    if isinstance(request, TranscriptionRequest):
        return replies.read_transcript(body, kind, request, key)
    raise AdapterError(FailureKind.NOT_FOUND, "this provider does not serve this task")


async def _complete(output: Images, call: InferenceCall, fetch: Fetch) -> None:
    """Where the caller wants bytes and the provider gave a URL, read it."""
    request = call.request
    if not isinstance(request, ImageRequest) or request.response_format != "b64_json":
        return
    for at, picture in enumerate(output.images):
        if picture.data is None and picture.url is not None:
            found = await media.fetched(picture.url, fetch)
            found.media_type = media.picture_type(found.data or b"")
            if not found.media_type:
                raise failures.unreadable("the URL leads to no picture", b"", call.api_key)
            output.images[at] = found


def _kind_of(exchange: Exchange) -> str:
    """The reply's media type without its parameters, in lower case."""
    return (exchange.header("content-type") or "").partition(";")[0].strip().lower()
