"""An event loop that is held up is told by a thread beside it: where, how long, not too often."""

import asyncio
import inspect
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.api.loop_watch import STALL_S, LoopWatch, where

ROOT = Path(__file__).resolve().parents[3]


def hold_up(seconds: float) -> None:
    """What is to be named."""
    time.sleep(seconds)


async def noticed(watch: LoopWatch, stalls: int) -> None:
    async with asyncio.timeout(10):
        while watch.stalls < stalls:  # noqa: ASYNC110  # a thread counts
            await asyncio.sleep(0.01)


async def test_what_holds_the_loop_up_is_named_while_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = LoopWatch()
    watch.start()
    await asyncio.sleep(0.4)
    with caplog.at_level(logging.WARNING):
        hold_up(STALL_S + 1.2)
        await noticed(watch, 1)
        await asyncio.sleep(0.2)
    watch.stop()
    first, last = (record.getMessage() for record in caplog.records)
    assert re.search(r"api/test_loop_watch\.py:\d+ hold_up$", first)
    assert "held up for 1 s" in first
    seconds = float(re.search(r"after ([\d.]+) s", last)[1])  # type: ignore[index]
    assert STALL_S + 0.5 < seconds < STALL_S + 2
    assert watch.stalls == 1


async def test_it_is_said_once_a_minute_and_counted_always(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = LoopWatch(say_every_s=60)
    watch.start()
    for stall in range(2):
        await asyncio.sleep(0.4)
        hold_up(STALL_S + 0.6)
        await noticed(watch, stall + 1)
        await asyncio.sleep(0.2)
    watch.stop()
    assert len(caplog.records) == 2, "a beginning and an end, both of the first"


async def test_work_that_takes_long_and_lets_others_in_is_no_stall() -> None:
    watch = LoopWatch()
    watch.start()
    until = time.monotonic() + STALL_S + 1
    while time.monotonic() < until:
        hold_up(0.2)
        await asyncio.sleep(0)
    watch.stop()
    assert watch.stalls == 0


async def test_it_ends_with_the_loop() -> None:
    watch = LoopWatch()
    watch.start()
    watch.stop()
    thread = watch._thread
    assert thread is not None
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


def test_a_process_that_was_stopped_as_a_whole_is_not_a_stall() -> None:
    """A suspended machine, a debugger: the thread itself did not run either."""
    code = (
        "import asyncio\n"
        "from app.api.loop_watch import LoopWatch\n"
        "async def main():\n"
        "    watch = LoopWatch()\n"
        "    watch.start()\n"
        "    print('up', flush=True)\n"
        "    await asyncio.sleep(4)\n"
        "    print(watch.stalls, flush=True)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        for _ in range(2):
            time.sleep(0.4)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(STALL_S + 1)
            os.kill(child.pid, signal.SIGCONT)
        assert child.stdout.readline() == "0\n"


def test_a_stack_is_told_by_names_of_code_alone() -> None:
    secret = "sk-secret"  # noqa: F841  # a value on the stack
    said = where(inspect.currentframe())
    assert said.endswith("test_a_stack_is_told_by_names_of_code_alone")
    assert "sk-secret" not in said and " > " in said
    assert where(None) == "its thread is gone"
