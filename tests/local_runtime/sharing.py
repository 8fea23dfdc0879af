"""A runtime with several models that share too little memory, and callers of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec

from local_runtime.adapter import LocalAdapter
from local_runtime.runtime import LocalModelSpec, LocalRuntime
from local_runtime.status import ModelStatus
from plugins.contract import InferenceCall
from tests.local_runtime.calls import Answer, answer, first_chunk, order


@asynccontextmanager
async def sharing(*specs: LocalModelSpec, **limits: Any) -> AsyncIterator[LocalAdapter]:
    """Nothing is preloaded unless the spec says so."""
    adapter = LocalAdapter(LocalRuntime(specs, **limits), price_nano_usd_per_second=0)
    await adapter.start()
    try:
        yield adapter
    finally:
        await adapter.close()


def model(name: str, source: str = "fake:memory_bytes=60", **fields: Any) -> LocalModelSpec:
    return LocalModelSpec(id=name, source=source, **{"preload": False, **fields})


def call_to(name: str, text: str = "hi", **kwargs: Any) -> InferenceCall:
    return msgspec.structs.replace(order(text, **kwargs), upstream_id=name)


async def ask(adapter: LocalAdapter, name: str, text: str = "hi", **kwargs: Any) -> Answer:
    return await answer(adapter, call_to(name, text, **kwargs))


class Stream:
    """A call whose first piece has come: it runs."""

    def __init__(self, adapter: LocalAdapter, name: str, text: str, **kwargs: Any) -> None:
        self.events = adapter.infer(call_to(name, text, **kwargs))
        self.begun = asyncio.Event()
        self.done: asyncio.Task[list[Any]] = asyncio.create_task(self._read())

    async def _read(self) -> list[Any]:
        async with aclosing(self.events) as events:
            seen: list[Any] = [await first_chunk(events)]
            self.begun.set()
            seen += [event async for event in events]
        return seen


async def started(adapter: LocalAdapter, name: str, text: str, **kwargs: Any) -> Stream:
    stream = Stream(adapter, name, text, **kwargs)
    async with asyncio.timeout(30):
        await stream.begun.wait()
    return stream


def status(adapter: LocalAdapter, name: str) -> ModelStatus:
    return next(each for each in adapter.runtime.status() if each.model == name)


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
