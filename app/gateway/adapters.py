"""The adapters in use, by provider: a new configuration swaps them whole, and one that is replaced
is closed when its last call has ended."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from plugins.contract import Adapter, AdapterError, FailureKind

log = logging.getLogger("turnpike.gateway")


class Adapters:
    """Who is in use, and by how many calls."""

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self._current = dict(adapters)
        self._uses: dict[int, int] = {}  # of adapters that calls are using, by identity
        self._retired: dict[int, Adapter] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> Mapping[str, Adapter]:
        """By provider."""
        return self._current

    def take(self, provider: str) -> Adapter:
        """The adapter of a provider, for one attempt: ``release`` it. Raises AdapterError for
        one that has gone."""
        adapter = self._current.get(provider)
        if adapter is None:
            raise AdapterError(FailureKind.NOT_FOUND, "the provider was taken out just now")
        mark = id(adapter)
        self._uses[mark] = self._uses.get(mark, 0) + 1
        return adapter

    def release(self, adapter: Adapter) -> None:
        """The attempt is over."""
        mark = id(adapter)
        self._uses[mark] -= 1
        if not self._uses[mark]:
            del self._uses[mark]
            if self._retired:
                retired = self._retired.pop(mark, None)
                if retired is not None:
                    self._close(retired)

    @contextmanager
    def use(self, provider: str) -> Iterator[Adapter]:
        """``take``, and ``release`` at the end."""
        adapter = self.take(provider)
        try:
            yield adapter
        finally:
            self.release(adapter)

    def replace(self, adapters: Mapping[str, Adapter]) -> None:
        """Swap them. Those that are left out are closed as soon as no call uses them."""
        kept = {id(adapter) for adapter in adapters.values()}
        before, self._current = self._current, dict(adapters)
        for adapter in before.values():
            if id(adapter) in kept:
                continue
            if id(adapter) in self._uses:
                self._retired[id(adapter)] = adapter
            else:
                self._close(adapter)

    async def close(self) -> None:
        """Close all, those in use too."""
        gone = [*self._current.values(), *self._retired.values()]
        self._retired.clear()
        for adapter in gone:
            await adapter.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _close(self, adapter: Adapter) -> None:
        task = asyncio.get_running_loop().create_task(self._closed(adapter))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @staticmethod
    async def _closed(adapter: Adapter) -> None:
        try:
            await adapter.close()
        except Exception:  # a plugin's fault, which must not end the appliance
            log.exception("an adapter that was replaced did not close")
