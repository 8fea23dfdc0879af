"""Adapters of queued providers in front of their played ones, and calls to them."""

import ipaddress
import itertools
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from plugins.conformance_tasks import TaskOutcome, perform
from plugins.contract import (
    Adapter,
    AdapterError,
    InferenceCall,
    ModelEntry,
    Plugin,
    Price,
    Toolbox,
)
from plugins.http.fetch import Fetcher
from plugins.tasks import (
    ImageRequest,
    Media,
    Request,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)
from tests.upstreams.queue import KEY, FileHost, PlayedQueue

PNG = b"\x89PNG\r\n\x1a\n picture"
LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_numbers = itertools.count()


def make_toolbox(*models: ModelEntry, request_id_header: str | None = None) -> Toolbox:
    return Toolbox(
        provider_id="played",
        models=models,
        log=logging.getLogger("tests.queued"),
        monotonic_ns=time.monotonic_ns,
        user_agent="Turnpike/test",
        fetch=Fetcher((LOOPBACK,), "Turnpike/test"),
        request_id_header=request_id_header,
    )


def model(upstream_id: str, *tasks: str, name: str = "acme/model") -> ModelEntry:
    return ModelEntry(
        id=name, upstream_id=upstream_id, tasks=tasks, price=Price(per_request=1_000_000)
    )


def image(scene: str = "", **params: Any) -> ImageRequest:
    return ImageRequest(model="acme/model", prompt=f"play:{scene}" if scene else "a cat", **params)


def edit(scene: str = "", **params: Any) -> ImageRequest:
    return image(scene, image=[Media(data=PNG, media_type="image/png")], **params)


def video(scene: str = "", **params: Any) -> VideoRequest:
    return VideoRequest(model="acme/model", prompt=f"play:{scene}", **params)


def speech(scene: str = "", **params: Any) -> SpeechRequest:
    return SpeechRequest(model="acme/model", input=f"play:{scene}", **params)


def listening(scene: str = "", **params: Any) -> TranscriptionRequest:
    if scene:
        params["prompt"] = f"play:{scene}"
    file = Media(data=b"RIFF\0\0\0\0WAVE sound", media_type="audio/wav")
    return TranscriptionRequest(model="acme/model", file=file, **params)


@dataclass
class Bench:
    """A started adapter, its played provider, and the host that results lie at."""

    adapter: Adapter
    played: PlayedQueue
    files: FileHost
    upstream_id: str

    def order(self, request: Request, **given: Any) -> InferenceCall:
        """A work order for a request."""
        number = next(_numbers)
        known: dict[str, Any] = {
            "upstream_id": self.upstream_id,
            "api_key": KEY,
            "first_event_s": 20.0,
            "deadline_s": 20.0,
        }
        return InferenceCall(
            call_id=f"call-{number}",
            attempt_id=f"attempt-{number}",
            request=request,
            stream=False,
            **{**known, **given},
        )

    async def run(self, request: Request, **given: Any) -> TaskOutcome:
        """The outcome of a request that succeeds."""
        return await perform(self.adapter, self.order(request, **given))

    async def fail(self, request: Request, **given: Any) -> AdapterError:
        """The failure of a request that fails; the key is nowhere in it."""
        try:
            await self.run(request, **given)
        except AdapterError as error:
            assert KEY not in f"{error.message} {error.detail} {error!r}"
            return error
        raise AssertionError("the call succeeded")

    def sent(self) -> dict[str, Any]:
        """The payload of the latest work."""
        return self.played.works[-1].payload

    def going_on(self) -> int:
        """Works that nobody has ended."""
        return sum(not work.cancelled for work in self.played.works if work.scene == "slow")


@asynccontextmanager
async def bench(
    plugin: Plugin,
    played: PlayedQueue,
    entry: ModelEntry,
    *,
    request_id_header: str | None = None,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """Everything started; questions come every few milliseconds."""
    async with FileHost() as files, played:
        played.files = files.serving.origin
        chosen = {"poll_first_s": 0.01, "poll_longest_s": 0.02, "base_url": played.origin}
        adapter = plugin.build(
            plugin.settings(**{**chosen, **settings}),
            make_toolbox(entry, request_id_header=request_id_header),
        )
        await adapter.start()
        try:
            yield Bench(adapter, played, files, entry.upstream_id)
        finally:
            await adapter.close()
        assert all("authorization" not in seen for seen in files.headers)
        assert all("x-key" not in seen for seen in files.headers)
