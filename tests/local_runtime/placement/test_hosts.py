"""One contract, both placements: the same tests over a thread and over a child process."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from local_runtime.engines.contract import (
    Admitted,
    EngineLoadError,
    EngineSpec,
    Failed,
    Finished,
    Piece,
)
from local_runtime.placement.child import ChildHost, child_environment
from local_runtime.placement.contract import Host, HostDied
from local_runtime.placement.inline import InlineHost
from plugins.contract import FailureKind
from tests.local_runtime.calls import collect, engine_request, heard, reason_of, text_of, words

ROOT = Path(__file__).resolve().parents[3]
Start = Callable[..., Awaitable[Host]]


def fake(**options: object) -> EngineSpec:
    return EngineSpec(
        engine="fake", options={name: str(v) for name, v in options.items()}, sequences_max=4
    )


def make(placement: str, spec: EngineSpec) -> Host:
    return InlineHost(spec) if placement == "inline" else ChildHost(spec)


@pytest.fixture
async def start(placement: str) -> AsyncIterator[Start]:
    hosts: list[Host] = []

    async def begin(**options: object) -> Host:
        host = make(placement, fake(**options))
        hosts.append(host)
        await host.start(lambda _fraction: None)
        return host

    yield begin
    for host in hosts:
        await host.close()


async def test_an_answer(start: Start) -> None:
    host = await start()
    events = await collect(host, engine_request("one two three"))
    assert isinstance(events[0], Admitted)
    assert text_of(events) == "echo: one two three"
    assert reason_of(events) == "stop"
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.usage.input_tokens, last.usage.output_tokens) == (3, 4)
    assert last.usage.compute_ns == 7_000_000


async def test_loading_reports_progress(placement: str) -> None:
    host = make(placement, fake(load_seconds=0.05))
    seen: list[float] = []
    info = await host.start(seen.append)
    await host.close()
    assert seen == sorted(seen)
    assert seen[0] == 0 and seen[-1] == 1
    assert info.context_length == 2048


async def test_a_model_that_cannot_be_loaded(placement: str) -> None:
    host = make(placement, fake(fail_on_load="no weights here"))
    with pytest.raises(EngineLoadError, match="no weights here"):
        await host.start(lambda _fraction: None)
    await host.close()


async def test_many_at_once(start: Start) -> None:
    host = await start()
    requests = [engine_request(f"number {n}") for n in range(50)]
    answers = await asyncio.gather(*(collect(host, request) for request in requests))
    assert [text_of(events) for events in answers] == [f"echo: number {n}" for n in range(50)]
    billed_ns = sum(events[-1].usage.compute_ns for events in answers)
    assert host.stats.busy_ns == billed_ns
    assert host.stats.unbilled_ns == 0


async def test_cancel_ends_with_the_bill(start: Start) -> None:
    host = await start(tokens_per_second=200)
    request = engine_request(words(500))
    seen = []
    async with aclosing(heard(host, request)) as events:
        async for event in events:
            seen.append(event)
            if len(seen) == 5:
                host.cancel(request.request_id)
    assert isinstance(seen[-1], Finished)
    assert 3 <= seen[-1].usage.output_tokens < 100


async def test_leaving_early_frees_the_place(start: Start) -> None:
    host = await start(tokens_per_second=200)
    for _ in range(8):  # twice as many as there are places
        async with aclosing(heard(host, engine_request(words(500)))) as events:
            async for event in events:
                if isinstance(event, Piece):
                    break
    assert text_of(await collect(host, engine_request("short"))) == "echo: short"


async def test_closing_ends_open_streams(placement: str) -> None:
    host = make(placement, fake(tokens_per_second=100))
    await host.start(lambda _fraction: None)
    stream = heard(host, engine_request(words(500)))
    while not isinstance(await anext(stream), Piece):
        pass
    await host.close()
    rest = [event async for event in stream]
    assert isinstance(rest[-1], Failed)
    assert rest[-1].kind is FailureKind.CRASHED


async def test_a_broken_engine_ends_every_stream_with_its_bill(placement: str) -> None:
    fatal = "crash_on" if placement == "child" else "break_on"
    host = make(placement, fake(**{fatal: "BOOM", "crash_after_tokens": 2}))
    await host.start(lambda _fraction: None)
    slow = asyncio.create_task(collect(host, engine_request(words(900))))
    events = await collect(host, engine_request("BOOM one two three"))
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.kind is FailureKind.CRASHED
    # The bill is that of the last event that arrived, to the nanosecond.
    assert last.usage == events[-2].usage
    assert last.usage.compute_ns == 1_000_000 * (last.usage.input_tokens + last.usage.output_tokens)
    assert isinstance((await slow)[-1], Failed)
    reason = await asyncio.wait_for(host.died(), 5)
    assert "signal 9" in reason or "RuntimeError" in reason
    late = await collect(host, engine_request("late"))
    assert [type(event) for event in late] == [Failed]
    await host.close()


async def test_dying_while_loading() -> None:
    host = ChildHost(fake(), [sys.executable, "-c", "import sys; sys.exit('no library')"])
    with pytest.raises(HostDied, match=r"status 1.*no library"):
        await host.start(lambda _fraction: None)
    await host.close()


async def test_a_command_that_does_not_exist() -> None:
    with pytest.raises(OSError):
        await ChildHost(fake(), ["/no/such/program"]).start(lambda _fraction: None)


async def test_a_child_that_talks_nonsense_is_ended() -> None:
    host = ChildHost(fake(), [sys.executable, "-c", "print('hello' * 999, flush=True); input()"])
    with pytest.raises(HostDied, match="no frame"):
        await host.start(lambda _fraction: None)
    await host.close()


async def test_a_child_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_API_KEY", "planted-secret")
    monkeypatch.setenv("TURNPIKE_MASTER_KEY", "planted-secret")
    host = ChildHost(fake())
    await host.start(lambda _fraction: None)
    environment = process_file(host.stats.pid, "environ")
    assert b"planted-secret" not in environment
    names = {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0") if entry}
    assert names <= set(child_environment(dict(os.environ)))
    await host.close()


async def test_a_child_is_on_its_own() -> None:
    """Own process group (no Ctrl-C from our terminal), first in line when memory runs out."""
    host = ChildHost(fake())
    await host.start(lambda _fraction: None)
    pid = host.stats.pid
    assert pid is not None
    assert os.getpgid(pid) == pid != os.getpgid(0)
    assert int(process_file(pid, "oom_score_adj")) >= 500
    await host.close()
    assert not alive(pid)


def process_file(pid: int | None, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def alive(pid: int) -> bool:
    try:
        return process_file(pid, "stat").rsplit(b") ", 1)[1][:1] != b"Z"
    except FileNotFoundError:
        return False


PARENT = """
import asyncio
from local_runtime.engines.contract import EngineSpec
from local_runtime.placement.child import ChildHost
async def main():
    host = ChildHost(EngineSpec(engine="fake"))
    await host.start(lambda fraction: None)
    print(host.stats.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_child_does_not_outlive_its_parent() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 30))
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    limit = time.monotonic() + 5
    while alive(child):
        assert time.monotonic() < limit
        await asyncio.sleep(0.01)


async def test_what_native_code_prints_does_not_disturb() -> None:
    """Something written to standard output in the child ends up in our log, not among frames."""
    noisy = (
        "import os, sys, threading, time\n"
        "import local_runtime.worker as worker\n"
        "taken = worker._take_over_pipes\n"
        "def take_over():\n"
        "    pipes = taken()\n"
        "    os.write(1, b'noise from native code' * 100)\n"
        "    print('more noise', flush=True)\n"
        "    return pipes\n"
        "worker._take_over_pipes = take_over\n"
        "sys.exit(worker.main())\n"
    )
    host = ChildHost(fake(), [sys.executable, "-c", noisy])
    await host.start(lambda _fraction: None)
    assert text_of(await collect(host, engine_request("calm"))) == "echo: calm"
    await host.close()


async def test_a_child_that_hangs_is_ended() -> None:
    """It owes an answer and does no step; whoever waits is told what happened."""
    host = ChildHost(fake(hang_on="STUCK"), step_s_max=0.5)
    await host.start(lambda _fraction: None)
    begun = time.monotonic()
    events = await collect(host, engine_request("one STUCK two"))
    assert 0.4 < time.monotonic() - begun < 5
    last = events[-1]
    assert isinstance(last, Failed) and last.kind is FailureKind.CRASHED
    assert "hung" in await asyncio.wait_for(host.died(), 5)
    await host.close()


async def test_a_child_that_stopped_while_nobody_listens_is_ended() -> None:
    """A caller gives up before the limit; the engine still owes the end of its work."""
    host = ChildHost(fake(tokens_per_second=100), step_s_max=0.5)
    await host.start(lambda _fraction: None)
    pid = host.stats.pid
    assert pid is not None
    async with aclosing(heard(host, engine_request(words(500)))) as events:
        async for event in events:
            if isinstance(event, Piece):
                os.kill(pid, signal.SIGSTOP)
                break
    assert "hung" in await asyncio.wait_for(host.died(), 5)
    await host.close()


async def test_a_slow_or_idle_child_is_left_alone() -> None:
    host = ChildHost(fake(tokens_per_second=4), step_s_max=0.6)
    await host.start(lambda _fraction: None)
    begun = time.monotonic()
    events = await collect(host, engine_request("one two three four five"))
    assert isinstance(events[-1], Finished)
    assert time.monotonic() - begun > 1.2  # twice the limit, a step at a time
    await asyncio.sleep(1.3)  # nothing to do is no reason either
    assert isinstance((await collect(host, engine_request("again")))[-1], Finished)
    await host.close()
