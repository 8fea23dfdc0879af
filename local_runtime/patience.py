"""How long a call waits for its engine's next sign of life.

A timer of its own for each token would be a quarter of what the token costs outside of the engine.
So there is one timer, which is set anew only when it fires and finds that there was life meanwhile.
"""

import asyncio

from local_runtime.placement.contract import Host


class Patience:
    """Expires one request on its host when nothing moves its limit in time. ``end`` it always."""

    __slots__ = ("_fires_s", "_host", "_limit_s", "_loop", "_request_id", "_timer")

    def __init__(self, host: Host, request_id: str, limit_s: float) -> None:
        """``limit_s`` is the first limit, in the running loop's time."""
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._request_id = request_id
        self._limit_s = self._fires_s = limit_s
        self._timer = self._loop.call_at(limit_s, self._look)

    def until(self, deadline_s: float, idle_s: float) -> None:
        """There was a sign of life: the limit is ``idle_s`` from now, at most ``deadline_s``."""
        self._limit_s = min(deadline_s, self._loop.time() + idle_s)
        if self._limit_s < self._fires_s:
            self._set()

    def end(self) -> None:
        self._timer.cancel()

    def _set(self) -> None:
        self._timer.cancel()
        self._fires_s = self._limit_s
        self._timer = self._loop.call_at(self._limit_s, self._look)

    def _look(self) -> None:
        if self._limit_s > self._fires_s:
            self._set()
        else:
            self._host.expire(self._request_id)
