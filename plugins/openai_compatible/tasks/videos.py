"""A video at an OpenAI-compatible provider: a job is made, asked after until it ends, and fetched.

OpenAI's ``/videos`` (openai/openai-openapi) and Together's, which has the same life but gives the
video's URL; Novita's answers once, with the URL (huggingface_hub, ``_providers/novita.py``).
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from msgspec import Raw

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
from plugins.http.client import Client, Exchange, HttpRequest
from plugins.openai_compatible.tasks import media, replies, requests
from plugins.openai_compatible.tasks.dialects import Videos
from plugins.openai_compatible.tasks.requests import Headers
from plugins.openai_compatible.tasks.usage import NULL, cost_of, milliseconds
from plugins.tasks import Media, Video, VideoRequest

POLL_S = (0.25, 0.5, 1.0, 2.0)
"""Pauses before the first questions after a job; the last one stays."""

_POLL_FAILURES_MAX = 3
_PASSING = frozenset(
    {
        FailureKind.CONNECT,
        FailureKind.UPSTREAM,
        FailureKind.OVERLOADED,
        FailureKind.RATE_LIMITED,
        FailureKind.PROTOCOL,
    }
)
_JOB_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}\Z")
_FORBIDDEN = re.compile(r"moderation|content_policy|safety", re.IGNORECASE)


class _Place(msgspec.Struct):
    video_url: str | None = None
    cost: Raw = NULL


class _Job(msgspec.Struct):
    id: str | None = None
    object: Any = None
    status: str | None = None
    seconds: str | float | None = None
    error: Any = None
    message: Any = None
    outputs: _Place | None = None  # Together's
    video: _Place | None = None  # Novita's


_decoder = msgspec.json.Decoder(_Job)


class VideoJob:
    """One video, from its request to its bytes."""

    def __init__(
        self, client: Client, call: InferenceCall, ways: Videos, headers: Headers, fetch: Fetch
    ) -> None:
        self._client = client
        self._call = call
        self._ways = ways
        self._headers = headers
        self._fetch = fetch
        self._by = 0.0

    async def make(self, request: VideoRequest, by: float) -> AsyncGenerator[Event, None]:
        """The events of one video, until ``by`` in the loop's time.

        A job cannot be called off there: closing the generator only ends the asking.
        """
        self._by = by
        job = await self._send(await self._request(request))
        if self._ways.once:
            yield Started(job.id or "")
        else:
            if not job.id or not _JOB_ID.match(job.id):
                raise failures.unreadable("the job has no id", b"", self._call.api_key)
            yield Started(job.id)
            job = await self._wait(job)
        video = await self._read(job)
        yield Produced(Video(video=video))
        yield UsageReport(_usage(job, video, request))

    async def _request(self, request: VideoRequest) -> HttpRequest:
        ways, model = self._ways, self._call.upstream_id
        body: dict[str, Any] = {"model": model, "prompt": request.prompt}
        body.update(requests.given(request))
        target, named = requests.with_model(ways.target, model)
        if named:
            del body["model"]
        if ways.pixels:
            requests.size_to_pixels(body)
        body = requests.rename(body, ways.renames)
        picture = request.input_reference or None
        if ways.form:
            fields = requests.text_fields(body)
            if picture is not None:
                fields.append(("input_reference", await media.with_data(picture, self._fetch)))
            return requests.form_request(target, self._headers, fields)
        if picture is not None:
            body["frame_images"] = [{"input_image": media.data_url(picture), "frame": "first"}]
        return requests.json_request(target, self._headers, body)

    async def _wait(self, job: _Job) -> _Job:
        """The job once it is done. A few questions in a row may fail: the job goes on anyway."""
        question = self._get(f"{self._ways.target}/{job.id}", "application/json")
        failed = asked = 0
        while job.status != "completed":
            if job.status in ("failed", "cancelled", "expired"):
                raise _failure(job, self._call.api_key)
            await self._pause(POLL_S[min(asked, len(POLL_S) - 1)])
            asked += 1
            try:
                answer = await self._send(question)
                answer.id = job.id
                job, failed = answer, 0
            except AdapterError as error:
                failed += 1
                if failed > _POLL_FAILURES_MAX or error.kind not in _PASSING:
                    raise
        return job

    async def _pause(self, seconds: float) -> None:
        if self._by - asyncio.get_running_loop().time() <= seconds:
            raise AdapterError(FailureKind.TIMEOUT, "the provider took too long")
        await asyncio.sleep(seconds)

    async def _read(self, job: _Job) -> Media:
        """The video's bytes, from where the job says, or from beside the job."""
        key, place = self._call.api_key, job.outputs or job.video
        if place is not None and place.video_url is not None:
            if not media.is_web_url(place.video_url):
                raise failures.unreadable("the video's URL is none", b"", key)
            return await media.fetched(place.video_url, self._fetch)
        if self._ways.once:
            raise failures.unreadable("no video", b"", key)
        asked = self._get(f"{self._ways.target}/{job.id}/content", "video/*, */*")
        exchange, body = await self._exchange(asked)
        kind = (exchange.header("content-type") or "").partition(";")[0].strip().lower()
        if not body or kind.startswith(("text/", "application/json")):
            raise failures.unreadable(f"content-type {kind}, {len(body)} bytes", body, key)
        return Media(data=body, media_type=kind if kind.startswith("video/") else "video/mp4")

    async def _send(self, request: HttpRequest) -> _Job:
        key = self._call.api_key
        _, body = await self._exchange(request)
        try:
            job: _Job = _decoder.decode(body)
        except failures.DECODE_ERRORS as error:
            raise failures.unreadable(error, body, key) from error
        if job.object == "error" or (job.error and job.status is None):
            raise failures.error_in_answer(job.error or job.message, key)
        return job

    async def _exchange(self, request: HttpRequest) -> tuple[Exchange, bytes]:
        silence_s = max(self._call.first_event_s, self._call.idle_s)
        exchange, body = await self._client.fetch(request, by=self._by, silence_s=silence_s)
        replies.check_head(exchange, body, self._call.api_key)
        return exchange, body

    def _get(self, target: str, accept: str) -> HttpRequest:
        return HttpRequest(
            target=target, method="GET", headers=(*self._headers, ("accept", accept))
        )


def _failure(job: _Job, key: str | None) -> AdapterError:
    said = failures.read_error(job.error)
    words = failures.clean(said.message, key)
    if _FORBIDDEN.search(said.code):
        return AdapterError(
            FailureKind.REFUSED, words or "the provider refuses this prompt", detail=said.code
        )
    return AdapterError(
        FailureKind.UPSTREAM,
        "the provider could not make the video",
        detail=failures.clean(f"{job.status} {said.code} {said.message}", key),
    )


def _usage(job: _Job, video: Media, request: VideoRequest) -> Usage:
    """The video's length as the provider says, else as the file says, else as asked for."""
    told = _ms(job.seconds)
    place = job.outputs or job.video
    return Usage(
        video_ms=told or media.video_ms(video.data or b"") or _ms(request.seconds or None),
        cost_nano_usd=None if place is None else cost_of(place.cost),
        estimated=not told,
    )


def _ms(seconds: str | float | None) -> int:
    try:
        return milliseconds(None if seconds is None else float(seconds))
    except ValueError:
        return 0
