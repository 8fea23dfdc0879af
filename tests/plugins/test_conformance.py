"""Every shipped adapter keeps the contract, and the kit notices adapters that do not."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from plugins.chat import AssistantMessage, Choice
from plugins.conformance import (
    CHECKS,
    Check,
    NotConforming,
    Subject,
    closing_stops_the_work,
    failures_are_adapter_errors,
    whole_answer_keeps_the_order,
)
from plugins.contract import (
    Adapter,
    Completion,
    Event,
    InferenceCall,
    Offer,
    Started,
    Usage,
    UsageReport,
)
from plugins.echo.plugin import PLUGIN as ECHO
from tests.plugins.conftest import make_call, make_toolbox

each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@each_check
async def test_openai_compatible_conforms(check: Check, adapter: Adapter) -> None:
    refused = make_call(prompt="play:unavailable")
    subject = Subject(
        adapter=adapter, call=make_call, refused=refused, is_providers=_is_played_provider
    )
    await check(subject)


def _is_played_provider(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "").startswith("PlayedProvider.")


@each_check
async def test_echo_conforms(check: Check) -> None:
    echo = ECHO.build(ECHO.settings(), make_toolbox("echo"))
    await echo.start()
    await check(Subject(adapter=echo, call=make_call))
    await echo.close()


class Wrong:
    """An adapter whose ``infer`` a test supplies."""

    def __init__(self, infer: Callable[[InferenceCall], AsyncGenerator[Event, None]]) -> None:
        self._infer = infer

    def offers(self) -> list[Offer]:
        return []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def infer(self, call: InferenceCall) -> AsyncIterator[Event]:
        return self._infer(call)


def _answer() -> Completion:
    message = AssistantMessage(role="assistant", content="text")
    return Completion([Choice(index=0, message=message, finish_reason="stop")])


async def test_kit_notices_missing_usage() -> None:
    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        yield _answer()

    with pytest.raises(NotConforming, match="UsageReport"):
        await whole_answer_keeps_the_order(Subject(adapter=Wrong(infer), call=make_call))


async def test_kit_notices_late_started() -> None:
    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        yield _answer()
        yield Started()
        yield UsageReport(Usage(input_tokens=1, output_tokens=1))

    with pytest.raises(NotConforming, match="Started comes first"):
        await whole_answer_keeps_the_order(Subject(adapter=Wrong(infer), call=make_call))


async def test_kit_notices_a_task_left_running() -> None:
    left: list[asyncio.Task[None]] = []

    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        left.append(asyncio.create_task(asyncio.sleep(60)))
        yield _answer()
        yield UsageReport(Usage(input_tokens=1, output_tokens=1))

    with pytest.raises(NotConforming, match="still running"):
        await closing_stops_the_work(Subject(adapter=Wrong(infer), call=make_call))
    for task in left:
        task.cancel()


async def test_kit_notices_foreign_exceptions() -> None:
    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        yield Started()
        raise KeyError("choices")

    subject = Subject(adapter=Wrong(infer), call=make_call, refused=make_call())
    with pytest.raises(NotConforming, match="AdapterError only"):
        await failures_are_adapter_errors(subject)
