"""What the played providers of queued work have in common: works, faults on cue, and their books.

A work's prompt may say ``play:SCENE``; any other is done after ``ASKED_UNTIL_DONE`` questions.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tests.upstreams.serving import Asked, Reply, Serving

KEY = "r8Zq3f9aOfTheAppliance"
ASKED_UNTIL_DONE = 2
# At submission: (status, body, headers).
AT_SUBMISSION: dict[str, tuple[int, Any, tuple[tuple[str, str], ...]]] = {
    "unavailable": (503, {"detail": "no capacity"}, ()),
    "broken": (500, {"detail": f"stack trace with {KEY}"}, ()),
    "limited": (429, {"detail": "slow down"}, (("Retry-After", "7"),)),
    "no-credit": (402, {"detail": "Insufficient credit"}, ()),
    "unknown-model": (404, {"detail": "not found"}, ()),
    "redirect": (302, "", (("Location", "http://127.0.0.1:1/"),)),
    "garbage": (200, "<html>It works</html>", ()),
    "no-id": (200, {}, ()),
}


@dataclass
class Work:
    """One piece of work; ``number`` tells works with the same id apart."""

    id: str
    number: int
    path: str
    payload: dict[str, Any]
    scene: str
    asked: int = 0
    faults: int = 0
    asked_at: list[float] = field(default_factory=list)
    cancelled: bool = False

    @property
    def is_done(self) -> bool:
        return self.asked >= ASKED_UNTIL_DONE and self.scene != "slow" and not self.cancelled


@dataclass
class PlayedQueue(ABC):
    """A provider; subclasses speak its format. ``files`` is the origin that results lie at,
    ``foreign`` an origin that is not the provider's."""

    files: str = "https://files.example"
    foreign: str = "http://127.0.0.1:9"
    works: list[Work] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    billed: list[int] = field(default_factory=list)

    async def __aenter__(self) -> "PlayedQueue":
        self.serving = Serving(self.play)
        await self.serving.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.serving.__aexit__(kind, error, trace)

    @property
    def origin(self) -> str:
        return self.serving.origin

    def is_ours(self, task: "asyncio.Task[Any]") -> bool:
        """Whether a task is this server's."""
        return self.serving.is_ours(task)

    async def play(self, asked: Asked, reply: Reply) -> None:
        """One request."""
        if not self.knows(asked):
            await reply.answer(401, {"detail": "Unauthenticated"})
            return
        work = self.work_of(asked)
        if work is None:
            await self._submit(asked, reply)
        elif self.is_cancel(asked):
            work.cancelled = True
            self.cancelled.append(work.id)
            await reply.answer(200, self.stands(work))
        elif not await self._fault(work, reply):
            work.asked += 1
            await self.answer(work, asked, reply)

    async def _submit(self, asked: Asked, reply: Reply) -> None:
        payload = asked.json()
        scene = self.scene_of(payload)
        if scene in AT_SUBMISSION:
            await reply.answer(*AT_SUBMISSION[scene])
            return
        if scene == "reset":
            await reply.reset()
        if scene == "silent":
            await reply.hang()
        number = len(self.works)
        known = "same-id" if scene == "duplicate" else f"work-{number}"
        work = Work(known, number, asked.path, payload, scene)
        self.works.append(work)
        await self.submitted(work, asked, reply)

    async def _fault(self, work: Work, reply: Reply) -> bool:
        """Play a fault in place of saying how the work stands, if one is on."""
        work.faults += 1
        work.asked_at.append(asyncio.get_running_loop().time())
        first, scene = work.faults == 1, work.scene
        if scene == "limited-while-asked" and work.faults <= 6:
            await reply.answer(429, {"detail": "slow down"}, (("Retry-After", "0"),))
        elif scene == "limited-for-a-second" and first:
            await reply.answer(429, {"detail": "slow down"}, (("Retry-After", "1"),))
        elif scene == "broken-while-asked" and work.faults <= 2:
            await reply.answer(503, {"detail": "back soon"})
        elif scene == "reset-while-asked" and first:
            await reply.reset()
        elif scene == "garbage-while-asked" and first:
            await reply.answer(200, "<html>")
        elif scene == "broken-for-good":
            await reply.answer(500, {"detail": f"stack trace with {KEY}"})
        elif scene == "garbage-for-good":
            await reply.answer(200, b"\xff\xfe{")
        elif scene == "lost":
            await reply.answer(404, {"detail": "no such work"})
        elif scene == "huge":
            await _flood(reply)
        else:
            return False
        return True

    def asks_of(self, work: Work) -> str:
        """The origin that is named for questions about the work."""
        return self.foreign if work.scene == "foreign" else self.origin

    def result(self, work: Work, name: str) -> str:
        """Where a result lies; a data URL, or something worse, where the scene says so."""
        if work.scene == "inline":
            return "data:image/png;base64,aW5saW5l"
        if work.scene == "file-url":
            return "file:///etc/hostname"
        return f"{self.files}/{work.number}/{name}"

    def scene_of(self, payload: dict[str, Any]) -> str:
        """What the prompt asks for."""
        return self.words(payload).partition("play:")[2]

    @abstractmethod
    def words(self, payload: dict[str, Any]) -> str:
        """The text that the payload asks something about."""

    @abstractmethod
    def knows(self, asked: Asked) -> bool:
        """Whether the request has the key, where the provider wants it."""

    @abstractmethod
    def work_of(self, asked: Asked) -> Work | None:
        """The work that is asked about; None for a submission."""

    @abstractmethod
    def is_cancel(self, asked: Asked) -> bool:
        """Whether a work is to be cancelled."""

    @abstractmethod
    async def submitted(self, work: Work, asked: Asked, reply: Reply) -> None:
        """Answer a submission."""

    @abstractmethod
    def stands(self, work: Work) -> Any:
        """How a work stands, as the provider says it."""

    async def answer(self, work: Work, asked: Asked, reply: Reply) -> None:
        """Say how the work stands."""
        await reply.answer(200, self.stands(work))

    def find(self, known: str) -> Work | None:
        """The latest work with an id."""
        return next((work for work in reversed(self.works) if work.id == known), None)


async def _flood(reply: Reply) -> None:
    """More than any answer may have."""
    await reply.begin(200, "application/json")
    for _ in range(80):
        await reply.send(b'"' * 1024 * 1024)
    await reply.end()


class FileHost:
    """Where results lie: another host than the provider's, which must never see a key."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.refuses = False

    async def __aenter__(self) -> "FileHost":
        self.serving = Serving(self._play)
        await self.serving.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.serving.__aexit__(kind, error, trace)

    async def _play(self, asked: Asked, reply: Reply) -> None:
        self.headers.append(asked.headers)
        if self.refuses:
            await reply.answer(403, "expired")
        else:
            kind = "text/plain" if asked.path.endswith(".txt") else "application/octet-stream"
            await reply.answer(200, self.bytes_at(asked.path), kind=kind)

    @staticmethod
    def bytes_at(path: str) -> bytes:
        """What lies there: something that begins like what the path says."""
        marks = {"png": b"\x89PNG\r\n\x1a\n", "wav": b"RIFF\0\0\0\0WAVE", "jpg": b"\xff\xd8\xff"}
        return marks.get(path.rpartition(".")[2], b"") + f"bytes of {path}".encode()
