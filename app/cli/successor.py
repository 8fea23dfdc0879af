"""The program that takes this one's place: asked for by SIGUSR2 or ``POST /api/restart``."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence

from app.api.admin.wire import Restarting
from app.cli.handover import HandOver, check, hold_signals
from app.cli.listener import Listener
from app.cli.notify import Notifier
from app.cli.sockets import BOUND, Listening, bind, moved
from app.config import Config
from app.errors import Unprocessable

log = logging.getLogger("turnpike.serve")


class Successor:
    """Checks the next program, has the listener let go for it, and says what it gets."""

    def __init__(
        self, program: Sequence[str], config: Config, reread: Callable[[], Config]
    ) -> None:
        self._program = program
        self._seconds_max = config.server.drain_seconds_max
        self._reread = reread
        self._one_at_a_time = asyncio.Lock()
        self._server: Listener | None = None
        self._listening: Listening | None = None
        self._notifier: Notifier | None = None

    def attach(self, server: Listener, listening: Listening, notifier: Notifier) -> None:
        """What runs now."""
        self._server, self._listening, self._notifier = server, listening, notifier

    async def begin(self) -> Restarting:
        """Start it, once it has said that it can; the answer comes before anything stops.

        Raises ConfigError when it could not start, and Unprocessable when this one is stopping.
        """
        if self._server is None or self._listening is None or self._notifier is None:
            raise Unprocessable("The server is still starting. Try again in a moment.")
        if not hasattr(signal, "SIGUSR2"):
            raise Unprocessable("This system cannot do that: stop the server, and start it again.")
        async with self._one_at_a_time:
            await self._check(self._listening)
            if not self._server.leave(self._seconds_max):
                raise Unprocessable("The server is stopping already.")
        self._notifier.handing_over(self._seconds_max)
        log.info("restarting: new connections wait until the running calls have ended")
        return Restarting(pid=os.getpid(), drain_seconds_max=self._seconds_max)

    def handed(self) -> HandOver | None:
        """What it gets, once the listener has ended; None where that was told to stop."""
        if self._server is None or self._listening is None or self._notifier is None:
            return None
        if not self._server.left:
            return None
        hold_signals()
        return HandOver(self._program, self._server.left, self._listening.origin, self._notifier)

    async def _check(self, listening: Listening) -> None:
        await check(self._program)
        if listening.origin == BOUND:
            server = (await asyncio.to_thread(self._reread)).server
            if moved(server, listening.sockets[0]):
                bind(server).close()
