"""One timer for a whole answer: it moves with signs of life, and ends what gives none."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from local_runtime.engines.contract import EngineEvent, EngineInfo, EngineRequest, Finished, Piece
from local_runtime.patience import Patience
from local_runtime.placement.frames import Stepped, ToEngine
from local_runtime.placement.reports import ReportedHost
from plugins.chat import ChatRequest, Message
from plugins.contract import Usage


class Silent(ReportedHost):
    """A host whose engine says only what the test puts in."""

    def __init__(self) -> None:
        self.told: list[ToEngine] = []
        super().__init__(self.told.append)

    async def start(self, progress: Callable[[float], None]) -> EngineInfo:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def says(self, event: EngineEvent) -> None:
        self._take(Stepped([event], 0, 0))


def listen(host: Silent) -> AsyncGenerator[list[EngineEvent], None]:
    chat = ChatRequest(model="m", messages=[Message(role="user", content="x")])
    return host.submit(EngineRequest(request_id="r", chat=chat))


def piece(text: str) -> Piece:
    return Piece("r", Usage(), text=text)


async def test_silence_past_the_limit_ends_the_wait_and_the_request() -> None:
    host = Silent()
    loop = asyncio.get_running_loop()
    patience = Patience(host, "r", loop.time() + 0.05)
    with pytest.raises(TimeoutError):
        async for _ in listen(host):
            pass
    patience.end()
    assert [type(each).__name__ for each in host.told] == ["Submit", "Cancel"]


async def test_a_sign_of_life_moves_the_limit_with_the_one_timer() -> None:
    host = Silent()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    patience = Patience(host, "r", began_s + 0.1)
    heard = []
    for moment in range(1, 5):
        loop.call_at(began_s + 0.06 * moment, host.says, piece(str(moment)))
    loop.call_at(began_s + 0.3, host.says, Finished("r", Usage()))
    async for events in listen(host):
        patience.until(began_s + 10, idle_s=0.1)
        heard += [type(event).__name__ for event in events]
    patience.end()
    assert heard == ["Piece"] * 4 + ["Finished"]


async def test_the_limit_can_come_nearer() -> None:
    host = Silent()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    patience = Patience(host, "r", began_s + 30)
    loop.call_later(0.01, host.says, piece("a"))
    with pytest.raises(TimeoutError):
        async for _ in listen(host):
            patience.until(began_s + 60, idle_s=0.05)
    patience.end()
    assert loop.time() - began_s < 10


async def test_no_sign_of_life_moves_it_past_the_deadline() -> None:
    host = Silent()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    patience = Patience(host, "r", began_s + 0.05)
    for moment in range(40):
        loop.call_at(began_s + 0.02 * moment, host.says, piece("a"))
    with pytest.raises(TimeoutError):
        async for _ in listen(host):
            patience.until(began_s + 0.2, idle_s=1)
    patience.end()
    assert loop.time() - began_s < 0.7


async def test_what_had_come_is_heard_first_and_nothing_after_it() -> None:
    host = Silent()
    heard: list[EngineEvent] = []
    loop = asyncio.get_running_loop()

    def speak_expire_speak() -> None:
        host.says(piece("a"))
        host.says(piece("b"))
        host.expire("r")
        host.says(piece("too late"))

    loop.call_later(0.01, speak_expire_speak)
    with pytest.raises(TimeoutError):
        async for events in listen(host):
            heard += events
    assert [event.text for event in heard if isinstance(event, Piece)] == ["a", "b"]
    assert [type(each).__name__ for each in host.told] == ["Submit", "Cancel"]
