"""Configured models whose files are not here: told as absent, pulled where the configuration says
so, and served as soon as they are in the store, whoever brought them.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from local_runtime.lifecycle.states import ModelState
from local_runtime.runtime import LocalModelSpec, LocalRuntime, RuntimeConfigError
from local_runtime.store.blobs import StoreError
from local_runtime.store.catalog import Store
from local_runtime.store.hub import HubSettings
from local_runtime.store.names import HubName, NameRefused
from local_runtime.store.pull import PullProgress, pull
from local_runtime.store.sources import IN_STORE, ModelFiles, SourceAbsent, SourceError, find

_log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
AGAIN_SECONDS_MIN = 60.0
AGAIN_SECONDS_MAX = 3600.0
_LOG_SECONDS = 10.0


class Missing(msgspec.Struct, frozen=True):
    """A configured model whose file is not here. ``hub`` is what would bring it."""

    spec: LocalModelSpec
    reason: str
    hub: HubName | None
    pull: bool


def located(
    specs: Sequence[LocalModelSpec], models_folder: Path, pulled: frozenset[str] = frozenset()
) -> tuple[list[LocalModelSpec], list[Missing]]:
    """Models as they can be served, their sources paths of files, and those that are missing.

    ``pulled``: ids of the models that are to be pulled. Raises RuntimeConfigError.
    """
    present: list[LocalModelSpec] = []
    missing: list[Missing] = []
    for spec in specs:
        if not spec.source.startswith(IN_STORE):
            present.append(spec)
            continue
        try:
            present.append(_with_files(spec, find(spec.source, models_folder)))
        except SourceAbsent as error:
            missing.append(Missing(spec, str(error), error.hub, spec.id in pulled))
        except SourceError as error:
            raise RuntimeConfigError(
                f"{spec.id}: {error}. Correct `source` of this model in the configuration, or"
                " remove the model."
            ) from error
    return present, missing


class Arrivals:
    """Looks after the missing models of one runtime."""

    def __init__(
        self,
        runtime: LocalRuntime,
        missing: Sequence[Missing],
        models_folder: Path,
        hub: Callable[[], HubSettings],
    ) -> None:
        """``hub`` gives the Hub's address and token, and is asked only before a pull."""
        self._runtime = runtime
        self._folder = models_folder
        self._hub = hub
        self._missing = {each.spec.id: each for each in missing}
        self._stop = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.changed: Callable[[], None] = lambda: None
        for each in missing:
            runtime.tell_absent(each.spec, ModelState.ABSENT, error=each.reason)

    def start(self) -> None:
        """Begin to wait and to pull; returns at once. Needs a running event loop."""
        for each in self._missing.values():
            if each.pull and each.hub is not None:
                _log.info("%s: pulling %s", each.spec.id, each.hub)
                work = self._bring(each, each.hub)
                self._tasks.append(asyncio.create_task(work, name=f"pull {each.spec.id}"))
            else:
                _log.warning("%s is absent: %s", each.spec.id, each.reason)
        if self._missing:
            self._tasks.append(asyncio.create_task(self._watch(), name="arrivals"))

    async def close(self) -> None:
        """Stop pulling; what came is kept."""
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Serve what was pulled or imported, by whomever."""
        while self._missing:
            await asyncio.sleep(LOOK_SECONDS)
            for each in list(self._missing.values()):
                await self._look(each)

    async def _look(self, each: Missing) -> None:
        try:
            files = await asyncio.to_thread(find, each.spec.source, self._folder)
        except (SourceError, OSError):
            return
        if self._missing.pop(each.spec.id, None) is None:
            return
        try:
            self._runtime.add(_with_files(each.spec, files))
        except RuntimeConfigError as error:
            _log.error("%s", error)
            self._runtime.tell_absent(each.spec, ModelState.FAILED, error=str(error))
            return
        _log.info("%s has arrived", each.spec.id)
        self.changed()

    async def _bring(self, each: Missing, name: HubName) -> None:
        """Pull, and when it failed again after a while."""
        again_s = AGAIN_SECONDS_MIN
        while each.spec.id in self._missing:
            self._runtime.tell_absent(each.spec, ModelState.PULLING)
            reason = await self._pull(each, name)
            await self._look(each)
            if reason is None:
                return
            _log.error("%s was not pulled: %s Next try in %d s.", each.spec.id, reason, again_s)
            self._runtime.tell_absent(each.spec, ModelState.ABSENT, error=reason)
            await asyncio.sleep(again_s)
            again_s = min(AGAIN_SECONDS_MAX, 2 * again_s)

    async def _pull(self, each: Missing, name: HubName) -> str | None:
        """None when it is here, else why not. In a thread that nobody waits for at the end."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str | None] = loop.create_future()
        told_s = loop.time()

        def heard(progress: PullProgress) -> None:
            nonlocal told_s
            fraction = progress.bytes_done / max(1, progress.bytes_total)
            if each.spec.id in self._missing:
                self._runtime.tell_absent(each.spec, ModelState.PULLING, fraction)
            if loop.time() - told_s > _LOG_SECONDS:
                told_s = loop.time()
                _log.info("%s: %s", each.spec.id, described(progress))

        def ended(reason: str | None) -> None:
            if not done.done():
                done.set_result(reason)

        def work() -> None:
            def tell(progress: PullProgress) -> None:
                with suppress(RuntimeError):  # the loop has ended: nobody listens
                    loop.call_soon_threadsafe(heard, progress)

            reason: str | None = None
            try:
                pull(Store(self._folder), self._hub(), name, tell=tell, stop=self._stop)
            except (StoreError, NameRefused, OSError) as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - it must be heard of, whatever it is
                _log.exception("%s", name)
                reason = f"{type(error).__name__}: {error}"
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(ended, reason)

        threading.Thread(target=work, name=f"pull {name}", daemon=True).start()
        return await done


def described(progress: PullProgress) -> str:
    """How far a pull is, in words."""
    if not progress.bytes_total:
        return progress.stage
    text = (
        f"{progress.stage}, {progress.bytes_done / max(1, progress.bytes_total):.0%} of"
        f" {progress.bytes_total / 1e6:.0f} MB"
    )
    if progress.bytes_per_second:
        text += f", {progress.bytes_per_second / 1e6:.1f} MB/s"
    if progress.eta_s is not None:
        text += f", {progress.eta_s:.0f} s left"
    return text


def _with_files(spec: LocalModelSpec, files: ModelFiles) -> LocalModelSpec:
    projector = spec.projector
    if projector is None and files.projector is not None:
        projector = f"file:{files.projector}"
    return msgspec.structs.replace(spec, source=f"file:{files.path}", projector=projector)
