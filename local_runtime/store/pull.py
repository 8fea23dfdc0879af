"""From the Hub into the store: ask, choose, download, hash, check, and only then have it.

A pull that was cut off, however, goes on where it stopped. Several of the same model at once are
one: the others wait for it, in this process or another.
"""

import shutil
import threading
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from local_runtime.store.accepted import check_file, check_model, role_of
from local_runtime.store.blobs import StoreError, WrongContent
from local_runtime.store.catalog import Manifest, NotInStore, Store, StoredFile, now_ms
from local_runtime.store.choice import Choice, HubFile, choose
from local_runtime.store.hub import Hub, HubSettings, Listing, PullFailed, PullStopped
from local_runtime.store.names import HubName, StoreName

FREE_BYTES_KEPT = 256 * 1024 * 1024
_TELL_SECONDS = 0.1
_SPEED_SECONDS = 5.0

Stage = Literal["asking", "waiting", "downloading", "checking", "done"]


class PullProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a pull is. Bytes are those of the whole model; ``eta_s`` None while nobody knows."""

    model: str
    stage: Stage
    file: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_second: float = 0.0
    eta_s: float | None = None


Tell = Callable[[PullProgress], None]


def pull(
    store: Store,
    settings: HubSettings,
    name: HubName,
    *,
    tell: Tell = lambda _progress: None,
    stop: threading.Event | None = None,
    projector: bool = True,
) -> Manifest:
    """Bring one model here, or what has changed of it, and return its manifest.

    Blocks; ``tell`` is called about ten times a second, from this thread. Raises StoreError (of
    which PullFailed and PullStopped), NameRefused, OSError.
    """
    return _Pull(store, settings, name, tell, stop or threading.Event()).run(projector)


class _Pull:
    def __init__(
        self, store: Store, settings: HubSettings, name: HubName, tell: Tell, stop: threading.Event
    ) -> None:
        self._store = store
        self._hub = Hub(settings)
        self._name = name
        self._stop = stop
        self._meter = _Meter(str(name), tell)

    def run(self, projector: bool) -> Manifest:
        self._meter.stage("asking")
        listing = self._hub.listing(self._name)
        choice = choose(listing.repo, listing.files, self._name.quant, projector=projector)
        self._meter.bytes_total = sum(file.bytes for file in choice.files)
        target = StoreName(listing.repo, choice.variant)
        with self._store.pulling(str(target), self._waiting(choice)):
            there = self._present(target, listing, choice)
            if there is None:
                there = self._bring(target, listing, choice)
        self._meter.stage("done", done=self._meter.bytes_total)
        return there

    def _waiting(self, choice: Choice) -> Callable[[], None]:
        """Told while somebody else pulls the same: how far they are."""

        def waiting() -> None:
            self._keep_on()
            self._meter.stage("waiting", done=sum(map(self._bytes_here, choice.files)))

        return waiting

    def _present(self, target: StoreName, listing: Listing, choice: Choice) -> Manifest | None:
        """The same model at the same commit, where it is here already."""
        try:
            manifest = self._store.get(target)
        except NotInStore:
            return None
        names = {file.name for file in manifest.files}
        whole = all(self._store.blobs.has(f.sha256, f.bytes) for f in manifest.files)
        wanted = {file.name for file in choice.files}
        if manifest.revision != listing.commit or not whole or not wanted <= names:
            return None
        return manifest

    def _bring(self, target: StoreName, listing: Listing, choice: Choice) -> Manifest:
        self._check_room(choice)
        files = []
        done = 0
        for file in choice.files:
            digest = self._file(listing, file, done)
            role = role_of(file.name)
            assert role is not None  # by choice
            files.append(
                msgspec.convert(
                    {"name": file.name, "bytes": file.bytes, "sha256": digest, "role": role},
                    StoredFile,
                )
            )
            done += file.bytes
        manifest = Manifest(
            id=target.id,
            variant=choice.variant,
            format=choice.format,
            files=files,
            source=str(HubName(listing.repo, None, self._name.revision)),
            revision=listing.commit,
            licence=listing.licence,
            at_ms=now_ms(),
        )
        self._store.put(manifest)
        if len(manifest.of_role("weights")) > 1 and manifest.format == "gguf":
            try:
                check_model(self._store.weights_path(manifest))
            except StoreError:
                self._store.remove(manifest.name)
                raise
        return manifest

    def _file(self, listing: Listing, file: HubFile, done: int) -> str:
        """One file, here and hashed: its SHA-256."""
        blobs = self._store.blobs
        if file.sha256 is not None and blobs.has(file.sha256, file.bytes):
            return file.sha256
        partial = blobs.partial_path(_key(file, listing.repo))
        for last in (False, True):
            resumed = partial.exists()
            self._hub.download(
                listing,
                file,
                partial,
                tell=lambda here: self._meter.downloaded(file.name, done + here),
                keep_on=self._keep_on,
            )
            self._meter.stage("checking", file.name, done + file.bytes)
            try:
                return blobs.adopt(
                    partial,
                    size=file.bytes,
                    digest=file.sha256,
                    git_oid=file.git_oid,
                    check=lambda path: check_file(path, file.name),
                    tell=lambda _bytes: self._keep_on(),
                )
            except WrongContent as error:
                # What was there before may have been the bad part: once more, from the start.
                if last or not resumed:
                    raise PullFailed(f"{listing.repo}: {file.name}: {error}") from error
        raise AssertionError

    def _check_room(self, choice: Choice) -> None:
        needed = sum(file.bytes - self._bytes_here(file) for file in choice.files)
        free = shutil.disk_usage(self._store.root).free
        if needed + FREE_BYTES_KEPT > free:
            raise PullFailed(
                f"{self._name} needs {needed / 1e9:.2f} GB more in {self._store.root}, where"
                f" {free / 1e9:.2f} GB are free, of which {FREE_BYTES_KEPT / 1e9:.2f} are kept."
                " `turnpike models prune` and `turnpike models rm` make room; `models_folder`"
                " under [local] names another place"
            )

    def _bytes_here(self, file: HubFile) -> int:
        if file.sha256 is not None and self._store.blobs.has(file.sha256, file.bytes):
            return file.bytes
        try:
            here = self._store.blobs.partial_path(_key(file, self._name.repo)).stat().st_size
        except FileNotFoundError:
            return 0
        return min(here, file.bytes)

    def _keep_on(self) -> None:
        if self._stop.is_set():
            raise PullStopped(f"the pull of {self._name} was stopped; what came is kept")


class _Meter:
    """Says how far it is: not too often, and with the speed of the last seconds."""

    def __init__(self, model: str, tell: Tell) -> None:
        self._model = model
        self._tell = tell
        self._told_s = 0.0
        self._points: list[tuple[float, int]] = []
        self.bytes_total = 0

    def stage(self, stage: Stage, file: str = "", done: int = 0) -> None:
        """Another stage: told at once, but for waiting, which is repeated."""
        self._points.clear()
        self._say(stage, file, done, always=stage != "waiting")

    def downloaded(self, file: str, done: int) -> None:
        now_s = time.monotonic()
        if self._points and done < self._points[-1][1]:
            self._points.clear()
        self._points.append((now_s, done))
        while len(self._points) > 2 and self._points[0][0] < now_s - _SPEED_SECONDS:
            del self._points[0]
        self._say("downloading", file, done, always=done == self.bytes_total)

    def _say(self, stage: Stage, file: str, done: int, *, always: bool) -> None:
        now_s = time.monotonic()
        if not always and now_s - self._told_s < _TELL_SECONDS:
            return
        self._told_s = now_s
        speed, eta_s = 0.0, None
        if len(self._points) > 1:
            (first_s, first), (last_s, last) = self._points[0], self._points[-1]
            speed = (last - first) / max(last_s - first_s, 1e-3)
            eta_s = (self.bytes_total - done) / speed if speed > 0 else None
        self._tell(
            PullProgress(
                model=self._model,
                stage=stage,
                file=file,
                bytes_done=done,
                bytes_total=self.bytes_total,
                bytes_per_second=speed,
                eta_s=eta_s,
            )
        )


def _key(file: HubFile, repo: str) -> str:
    """What a part of this content is called, in whichever pull it comes."""
    if file.sha256 is not None:
        return f"sha256 {file.sha256}"
    return f"git {file.git_oid} {repo} {file.name}"
