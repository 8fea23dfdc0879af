"""Adapters that are swapped while calls use them."""

import asyncio

import pytest

from app.gateway.adapters import Adapters
from plugins.contract import AdapterError


class Closing:
    """Counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


def made(**adapters: Closing) -> Adapters:
    return Adapters(adapters)  # type: ignore[arg-type]  # only closing matters


async def test_one_in_use_is_closed_when_its_last_call_has_ended() -> None:
    old, new = Closing(), Closing()
    adapters = made(a=old)
    with adapters.use("a"):
        with adapters.use("a"):
            adapters.replace({"a": new})  # type: ignore[dict-item]
            with adapters.use("a") as later:
                assert id(later) == id(new)
        await asyncio.sleep(0)
        assert old.closed == 0
    await asyncio.sleep(0)
    assert (old.closed, new.closed) == (1, 0)


async def test_one_that_stays_is_left_alone_and_one_that_is_idle_goes_at_once() -> None:
    stays, goes = Closing(), Closing()
    adapters = made(a=stays, b=goes)
    adapters.replace({"a": stays})  # type: ignore[dict-item]
    await asyncio.sleep(0)
    assert (stays.closed, goes.closed) == (0, 1)
    with pytest.raises(AdapterError, match="taken out"), adapters.use("b"):
        pass


async def test_the_end_closes_those_in_use_too() -> None:
    old, new = Closing(), Closing()
    adapters = made(a=old)
    with adapters.use("a"):
        adapters.replace({"a": new})  # type: ignore[dict-item]
        await adapters.close()
        assert (old.closed, new.closed) == (1, 1)
