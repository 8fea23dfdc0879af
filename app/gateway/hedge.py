"""A second try beside the first: where one offer has said nothing for a while, another is asked the
same, and the answer that begins first is the one. The other is closed at once.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

from plugins.contract import AdapterError, Event, Started

Begin = Callable[[], AsyncIterator[Event]]


async def hedged(
    first: Begin,
    second: Begin,
    after_s: float,
    chosen: Callable[[bool, BaseException | None], None],
) -> AsyncGenerator[Event, None]:
    """The events of whichever attempt says something first, ``Started`` apart.

    ``second`` begins when ``first`` has been silent for ``after_s``. ``chosen`` is told, before the
    first event, whether the second was, and of the other's failure if that is why. Where both
    fail, the first's failure is raised.
    """
    racers = [_Racer(first())]
    try:
        await asyncio.wait({racers[0].task}, timeout=after_s)
        if not racers[0].task.done():
            racers.append(_Racer(second()))
        winner = await _winner(racers)
        loser = racers[0] if winner is not racers[0] else racers[-1]
        chosen(winner is not racers[0], loser.failure if loser is not winner else None)
        for racer in racers:
            if racer is not winner:
                await racer.end()
        for event in winner.heard:
            yield event
        async with aclosing(cast(Any, winner.events)) as events:
            async for event in events:
                yield event
    finally:
        for racer in racers:
            await racer.end()


class _Racer:
    """One attempt on its way to its first event that is part of an answer."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self.events = events
        self.heard: list[Event] = []
        self.task = asyncio.get_running_loop().create_task(self._run())

    @property
    def failed(self) -> bool:
        """Whether it ended without an answer."""
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)

    @property
    def failure(self) -> BaseException | None:
        """Why it failed, where it did."""
        return self.task.exception() if self.failed and not self.task.cancelled() else None

    async def _run(self) -> None:
        async for event in self.events:
            self.heard.append(event)
            if not isinstance(event, Started):
                return

    async def end(self) -> None:
        """Stop it and close what it opened; nothing happens to one that is done and closed."""
        self.task.cancel()
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.exception()  # looked at, so that the loop does not complain
        await cast(Any, self.events).aclose()


async def _winner(racers: list[_Racer]) -> _Racer:
    """The first to have an event. Raises the first one's failure where all fail."""
    running = {racer.task for racer in racers}
    while running:
        _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for racer in racers:
            if racer.task.done() and not racer.failed:
                return racer
    failure = racers[0].task.exception()
    if isinstance(failure, AdapterError):
        raise failure
    raise failure or AssertionError("an attempt ended without a failure or an event")
