"""Delivery between the call's task and its reader."""

import asyncio
from collections.abc import Sequence

import pytest

from app.clock import SystemClock
from app.errors import UpstreamFailed
from app.gateway import pump as pump_module
from app.gateway.call import Call, CallState
from app.gateway.pump import BUFFER_BYTES_MAX, Pump
from app.identity.principal import Principal
from app.ids import new_call_id
from plugins.chat import ChatRequest, ChoiceDelta, Delta, Message


def delta(text: str) -> ChoiceDelta:
    return ChoiceDelta(index=0, delta=Delta(content=text))


def make_pump() -> Pump:
    clock = SystemClock()
    call = Call(
        id=new_call_id(),
        principal=Principal(user_id="u", user_name="u", key_id="k"),
        request=ChatRequest(model="m", messages=[Message(role="user", content="x")], stream=True),
        body_bytes=10,
        admitted_at_ms=clock.now_ms(),
        started_ns=clock.monotonic_ns(),
    )
    call.move(CallState.HELD)
    call.move(CallState.DISPATCHED)
    return Pump(call, clock.monotonic_ns)


async def test_what_waits_together_is_taken_together() -> None:
    pump = make_pump()
    await pump.put([delta("a")])
    await pump.put([delta("b"), delta("c")])
    await pump.ready()
    taken = await pump.take(1)
    assert [d.delta.content for d in taken or ()] == ["a", "b", "c"]
    assert await pump.take(0.01) == []
    pump.end(None)
    assert await pump.take(1) is None


async def test_a_waiting_reader_is_woken() -> None:
    pump = make_pump()
    reading = asyncio.create_task(pump.take(10))
    await asyncio.sleep(0)
    await pump.put([delta("a")])
    assert len(await reading or ()) == 1


async def test_a_failure_comes_after_what_was_delivered() -> None:
    pump = make_pump()
    await pump.put([delta("a")])
    pump.end(UpstreamFailed("broken"))
    await pump.ready()
    assert len(await pump.take(1) or ()) == 1
    with pytest.raises(UpstreamFailed):
        await pump.take(1)


async def test_a_failure_before_anything_is_raised_at_once() -> None:
    pump = make_pump()
    pump.end(UpstreamFailed("broken"))
    with pytest.raises(UpstreamFailed):
        await pump.ready()


async def test_a_full_buffer_holds_the_task_back() -> None:
    pump = make_pump()
    big = delta("x" * (BUFFER_BYTES_MAX + 1))
    putting = asyncio.create_task(pump.put([big]))
    await asyncio.sleep(0.02)
    assert not putting.done()
    assert len(await pump.take(1) or ()) == 1
    await asyncio.wait_for(putting, 1)


async def test_a_reader_that_leaves_frees_the_task() -> None:
    pump = make_pump()
    pump.stop = asyncio.Event()
    putting = asyncio.create_task(pump.put([delta("x" * (BUFFER_BYTES_MAX + 1))]))
    await asyncio.sleep(0.02)
    pump.leave()
    await asyncio.wait_for(putting, 1)
    assert pump.call.client_left
    assert pump.stop.is_set()
    await pump.put([delta("thrown away")])
    assert pump.call.delivered_pieces == 2


async def test_a_stalled_reader_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "READER_STALLED_S", 0.05)
    pump = make_pump()
    await pump.put([delta("x" * (BUFFER_BYTES_MAX + 1))])
    assert pump.call.client_left


async def test_leaving_after_the_end_changes_nothing() -> None:
    pump = make_pump()
    await pump.put([delta("a")])
    pump.end(None)
    pump.leave()
    assert not pump.call.client_left


class Line:
    """A client's connection: what was written to it, and whether it takes more."""

    def __init__(self, pump: Pump) -> None:
        self.texts: list[str | None] = []
        self.blocked = False
        pump.deliver_by(self._deliver)

    def _deliver(self, deltas: Sequence[ChoiceDelta]) -> bool:
        if not self.blocked:
            self.texts += [each.delta.content or None for each in deltas]
        return not self.blocked


async def test_a_lone_piece_goes_past_a_reader_that_waits() -> None:
    pump = make_pump()
    line = Line(pump)
    reading = asyncio.create_task(pump.take(10))
    await asyncio.sleep(0)
    await pump.put([delta("a")], alone=True)
    await pump.put([delta("b")], alone=True)
    assert line.texts == ["a", "b"]
    assert not reading.done()
    await pump.put([delta("c")])
    assert [d.delta.content for d in await reading or ()] == ["c"]
    assert pump.call.delivered_pieces == 3


async def test_nothing_overtakes_what_the_reader_has_not_sent_yet() -> None:
    pump = make_pump()
    line = Line(pump)
    await pump.put([delta("a")], alone=True)  # nobody waits
    await pump.put([delta("b")], alone=True)
    assert line.texts == []
    taken = await pump.take(1)
    # The reader is writing these now, and may be held up: the next ones wait for it.
    await pump.put([delta("c")], alone=True)
    assert line.texts == []
    assert [d.delta.content for d in taken or ()] == ["a", "b"]
    assert [d.delta.content for d in await pump.take(1) or ()] == ["c"]


async def test_a_line_that_takes_no_more_fills_the_buffer() -> None:
    pump = make_pump()
    line = Line(pump)
    line.blocked = True
    reading = asyncio.create_task(pump.take(10))
    await asyncio.sleep(0)
    await pump.put([delta("a")], alone=True)
    line.blocked = False
    await pump.put([delta("b")], alone=True)  # the reader has been woken for what is before it
    assert line.texts == []
    assert [d.delta.content for d in await reading or ()] == ["a", "b"]


async def test_a_heartbeat_is_due_after_the_last_piece_however_it_went_out() -> None:
    pump = make_pump()
    Line(pump)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    reading = asyncio.create_task(pump.take(0.2))
    await asyncio.sleep(0.15)
    await pump.put([delta("a")], alone=True)
    assert await reading == []
    assert loop.time() - began_s >= 0.33


async def test_the_end_wakes_a_reader_that_was_passed_by() -> None:
    pump = make_pump()
    Line(pump)
    reading = asyncio.create_task(pump.take(10))
    await asyncio.sleep(0)
    await pump.put([delta("a")], alone=True)
    pump.end(None)
    assert await reading is None
