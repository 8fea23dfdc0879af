"""Videos that are being made, and for a day those that were: who asked, how it stands, the file.

A job's call runs in the gateway's own task, and the client only asks after it. Its row says how it
ended; the bytes are the file ``videos/ID`` in the data directory. What was unfinished when the
process ended is failed at the next start: the ledger frees such a call's money by itself.
"""

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from app.clock import Clock
from app.errors import CallError, Conflict, Internal, NotFound, UpstreamFailed
from app.gateway.call import CallState
from app.gateway.pump import Pump
from app.ledger.entries import IdempotencyKey
from app.ledger.idempotency import refuse_another
from app.storage.database import Database, Row, Transaction
from plugins.contract import AdapterError, Fetch
from plugins.tasks import Media, Video

log = logging.getLogger("turnpike.videos")

LIVES_MS = 24 * 3_600_000
BYTES_MAX = 4 << 30
"""Of all kept videos together; the oldest of whoever has most make room for new ones."""

PROMPTLY_S = 0.25
"""A call that fails within this is answered with its error; later it is the job that has failed."""

_COLUMNS = (
    "id, model, seconds, size, status, created_at_ms, completed_at_ms, expires_at_ms,"
    " error_code, error_message, media_type, bytes"
)
_WAITING = frozenset({CallState.ADMITTED, CallState.HELD})


class VideoJob(msgspec.Struct, kw_only=True):
    """One job. ``status`` is queued, in_progress, completed or failed."""

    id: str
    model: str
    seconds: str | None
    size: str | None
    status: str
    created_at_ms: int
    completed_at_ms: int | None
    expires_at_ms: int
    error_code: str | None
    error_message: str | None
    media_type: str | None
    bytes: int | None


class VideoJobs:
    """The jobs of all users. Whoever asks names the user whose job it must be."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        data_dir: Path,
        fetch: Fetch,
        *,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._database = database
        self._clock = clock
        self._folder = data_dir / "videos"
        self._fetch = fetch
        self._bytes_max = bytes_max
        self._running: dict[str, tuple[Pump, asyncio.Task[CallError | None]]] = {}

    async def open(self) -> None:
        """Fail what the last process left unfinished, and forget files that no row has."""
        now = self._clock.now_ms()

        def unit(tx: Transaction) -> None:
            tx.execute(
                "UPDATE videos SET status = 'failed', error_code = 'server_restarted',"
                " error_message = 'The server was restarted before the video was finished. Nothing"
                " is kept of it; ask again.', completed_at_ms = ?, idempotency_key = NULL"
                " WHERE status = 'running'",
                (now,),
            )

        await self._database.write(unit, is_note=True)
        await self.sweep()
        rows = await self._database.read("SELECT id FROM videos WHERE bytes IS NOT NULL")
        await asyncio.to_thread(_keep_only, self._folder, {row[0] for row in rows})

    async def close(self) -> None:
        """Wait until what ended with the gateway's drain has been written down."""
        tasks = [task for _, task in self._running.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=5.0)
            for task in late:
                task.cancel()

    async def add(self, user_id: str, job: VideoJob, key: IdempotencyKey | None) -> VideoJob | None:
        """Write a new job down. What the same request got before under its key is returned.

        Raises Unprocessable for another request under the same key.
        """
        await self.sweep()

        def unit(tx: Transaction) -> list[Row]:
            if key is not None:
                before = tx.execute(
                    f"SELECT request_hash, {_COLUMNS} FROM videos"  # noqa: S608 (its parts are ours)
                    " WHERE user_id = ? AND idempotency_key = ?",
                    (user_id, key.key),
                )
                if before:
                    return before
            tx.execute(
                "INSERT INTO videos (id, user_id, model, seconds, size, status, created_at_ms,"
                " expires_at_ms, idempotency_key, request_hash)"
                " VALUES (?, ?, ?, ?, ?, 'running', ?, ?, ?, ?)",
                (
                    *(job.id, user_id, job.model, job.seconds, job.size),
                    *(job.created_at_ms, job.expires_at_ms),
                    *((None, None) if key is None else (key.key, key.request_hash)),
                ),
            )
            return []

        before = await self._database.write(unit, is_note=True)
        if not before or key is None:
            return None
        refuse_another(before[0][0], key)
        return self._job(before[0][1:])

    async def follow(self, job_id: str, pump: Pump) -> CallError | None:
        """Keep what the call makes. The error of a call that failed at once, else None."""
        task = asyncio.get_running_loop().create_task(self._carry(job_id, pump))
        self._running[job_id] = (pump, task)
        done, _ = await asyncio.wait({task}, timeout=PROMPTLY_S)
        return task.result() if done else None

    async def get(self, user_id: str, job_id: str) -> VideoJob:
        """One job. Raises NotFound, for another user's too."""
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM videos"  # noqa: S608 (its parts are ours)
            " WHERE id = ? AND user_id = ? AND (expires_at_ms > ? OR status = 'running')",
            (job_id, user_id, self._clock.now_ms()),
        )
        if not rows:
            raise _unknown(job_id)
        return self._job(rows[0])

    async def list(
        self, user_id: str, *, after: str | None, limit: int, ascending: bool
    ) -> list[VideoJob]:
        """A user's jobs by age, at most ``limit``, those behind ``after`` in that order."""
        order = "ASC" if ascending else "DESC"
        beyond = "" if after is None else f" AND id {'>' if ascending else '<'} ?"
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM videos"  # noqa: S608 (its parts are ours)
            f" WHERE user_id = ? AND (expires_at_ms > ? OR status = 'running'){beyond}"
            f" ORDER BY id {order} LIMIT ?",
            (user_id, self._clock.now_ms(), *(() if after is None else (after,)), limit),
        )
        return [self._job(row) for row in rows]

    async def delete(self, user_id: str, job_id: str) -> None:
        """Forget a job; one that runs is abandoned as if its client had left. Raises NotFound."""

        def unit(tx: Transaction) -> list[Row]:
            return tx.execute(
                "DELETE FROM videos WHERE id = ? AND user_id = ? RETURNING id", (job_id, user_id)
            )

        if not await self._database.write(unit, is_note=True):
            raise _unknown(job_id)
        if (running := self._running.get(job_id)) is not None:
            running[0].leave()
        await asyncio.to_thread(_remove, self._folder, [job_id])

    async def file_of(self, user_id: str, job_id: str) -> tuple[Path, str]:
        """A finished video's file and media type. Raises NotFound, Conflict for an unfinished."""
        job = await self.get(user_id, job_id)
        if job.status in ("queued", "in_progress"):
            raise Conflict(f"The video {job_id!r} is not finished yet.", code="video_not_ready")
        if job.status == "failed" or job.bytes is None:
            raise NotFound(f"The video {job_id!r} has no content.", code="video_without_content")
        return self._folder / job_id, job.media_type or "video/mp4"

    async def sweep(self) -> int:
        """Forget what has expired, rows and files; how many those were."""
        now = self._clock.now_ms()
        due = "SELECT 1 FROM videos WHERE expires_at_ms <= ? AND status <> 'running' LIMIT 1"
        if not await self._database.read(due, (now,)):
            return 0

        def unit(tx: Transaction) -> list[Row]:
            return tx.execute(
                "DELETE FROM videos WHERE expires_at_ms <= ? AND status <> 'running' RETURNING id",
                (now,),
            )

        gone = [row[0] for row in await self._database.write(unit, is_note=True)]
        await asyncio.to_thread(_remove, self._folder, gone)
        return len(gone)

    async def _carry(self, job_id: str, pump: Pump) -> CallError | None:
        """Until the call has ended and that is written down; its error, if it failed."""
        failure: CallError
        try:
            await pump.ready()
            media = await self._bytes_of(pump.output)
            await self._keep(job_id, media, pump.call.usage.video_ms)
            return None
        except CallError as error:
            failure = error
        except Exception:
            log.exception("video %s: it could not be kept", job_id)
            failure = Internal()
        finally:
            self._running.pop(job_id, None)
        try:
            await self._fail(job_id, failure)
        except CallError:
            log.warning("video %s: its failure could not be written down", job_id)
        return failure

    async def _bytes_of(self, output: object) -> Media:
        if not isinstance(output, Video):
            raise UpstreamFailed("The provider's adapter answered with something else.")
        if output.video.data:
            return output.video
        try:
            return await self._fetch(output.video.url or "")
        except AdapterError as error:
            raise UpstreamFailed(
                "The video was made, but could not be fetched from the provider.",
                code="result_not_fetched",
            ) from error

    async def _keep(self, job_id: str, media: Media, video_ms: int) -> None:
        data, now = media.data or b"", self._clock.now_ms()
        await asyncio.to_thread(_write, self._folder, job_id, data)
        seconds = f"{video_ms / 1000:g}" if video_ms else None

        def unit(tx: Transaction) -> tuple[bool, list[str]]:
            gone = _make_room(tx, self._bytes_max - len(data), now)
            rows = tx.execute(
                "UPDATE videos SET status = 'completed', completed_at_ms = ?, expires_at_ms = ?,"
                " media_type = ?, bytes = ?, seconds = coalesce(seconds, ?)"
                " WHERE id = ? AND status = 'running' RETURNING id",
                (now, now + LIVES_MS, media.media_type or None, len(data), seconds, job_id),
            )
            return bool(rows), gone

        kept, gone = await self._database.write(unit, is_note=True)
        # A job that was deleted while it ran has no row any more.
        await asyncio.to_thread(_remove, self._folder, gone if kept else [*gone, job_id])

    async def _fail(self, job_id: str, failure: CallError) -> None:
        now = self._clock.now_ms()

        def unit(tx: Transaction) -> None:
            tx.execute(
                "UPDATE videos SET status = 'failed', completed_at_ms = ?, error_code = ?,"
                " error_message = ?, idempotency_key = NULL WHERE id = ? AND status = 'running'",
                (now, failure.code or failure.type, failure.message, job_id),
            )

        await self._database.write(unit, is_note=True)

    def _job(self, row: Any) -> VideoJob:
        job = VideoJob(**dict(zip(VideoJob.__struct_fields__, row, strict=True)))
        if job.status == "running":
            running = self._running.get(job.id)
            waiting = running is None or running[0].call.state in _WAITING
            job.status = "queued" if waiting else "in_progress"
        return job


def _unknown(job_id: str) -> NotFound:
    return NotFound(f"There is no video {job_id[:80]!r}.", param="video_id", code="video_not_found")


def _make_room(tx: Transaction, room: int, now: int) -> list[str]:
    """Give up kept files until at most ``room`` bytes are left of them; the ids of those."""
    gone: list[str] = []
    while True:
        ((total,),) = tx.execute("SELECT coalesce(sum(bytes), 0) FROM videos")
        if total <= max(room, 0):
            return gone
        ((victim,),) = tx.execute(
            "SELECT id FROM videos WHERE bytes IS NOT NULL AND user_id = (SELECT user_id FROM"
            " videos GROUP BY user_id ORDER BY coalesce(sum(bytes), 0) DESC LIMIT 1)"
            " ORDER BY id LIMIT 1"
        )
        tx.execute("UPDATE videos SET bytes = NULL, expires_at_ms = ? WHERE id = ?", (now, victim))
        gone.append(victim)


def _write(folder: Path, name: str, data: bytes) -> None:
    """Write a file that only the operator's account can read, whole or not at all."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = folder / f".{name}"
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    unfinished.replace(folder / name)


def _remove(folder: Path, names: list[str]) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()


def _keep_only(folder: Path, names: set[str]) -> None:
    if folder.is_dir():
        _remove(folder, [each.name for each in folder.iterdir() if each.name not in names])
