"""Attempts that go on past their time."""

import asyncio

import pytest

from app.gateway import overdue
from app.gateway.overdue import Overdue


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "LOOK_EVERY_S", 0.01)


async def test_one_that_is_late_is_cancelled_and_others_are_not() -> None:
    watch, now = Overdue(), asyncio.get_running_loop().time()
    late, patient = (asyncio.ensure_future(asyncio.sleep(5)) for _ in range(2))
    watch.watch(late, now + 0.02)
    watch.watch(patient, now + 60)
    await asyncio.wait({late}, timeout=5)
    assert late.cancelled()
    assert watch.forget(late)
    assert not watch.forget(late)  # told once
    assert not patient.done()
    assert not watch.forget(patient)
    patient.cancel()


async def test_the_time_can_be_moved() -> None:
    watch, now = Overdue(), asyncio.get_running_loop().time()
    task = asyncio.ensure_future(asyncio.sleep(5))
    watch.watch(task, now + 60)
    watch.watch(task, now)
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()


async def test_what_has_ended_is_not_cancelled_and_the_timer_rests() -> None:
    watch, now = Overdue(), asyncio.get_running_loop().time()
    task = asyncio.ensure_future(asyncio.sleep(0.1))
    watch.watch(task, now)
    assert not watch.forget(task)
    await task
    assert watch._looking is None  # nobody is left to look at
