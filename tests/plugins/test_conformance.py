"""The adapters keep the contract; those with a folder of their own are checked there."""

import asyncio
from typing import Any

import pytest

from plugins.conformance import CHECKS, Check, Subject
from plugins.contract import Adapter
from plugins.echo.plugin import PLUGIN as ECHO
from tests.plugins.conftest import make_call, make_toolbox
from tests.upstreams.provider import PlayedProvider

each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@each_check
async def test_openai_compatible_conforms(
    check: Check, adapter: Adapter, provider: PlayedProvider
) -> None:
    subject = Subject(
        adapter=adapter,
        call=make_call,
        tools=lambda stream: make_call(stream, prompt="play:tools"),
        refused=make_call(prompt="play:unauthorised", api_key="sk-secret-1"),
        models=make_toolbox().models,
        keys_seen=lambda: [str(booked.headers) for booked in provider.books],
        is_providers=_is_played_provider,
    )
    left_out = await check(subject)
    assert (left_out is None) == (check.__name__ != "stopping_ends_with_usage")


def _is_played_provider(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "").startswith("PlayedProvider.")


@each_check
async def test_echo_conforms(check: Check) -> None:
    echo = ECHO.build(ECHO.settings(), make_toolbox("echo"))
    await echo.start()
    await check(Subject(adapter=echo, call=make_call, models=make_toolbox().models))
    await echo.close()
