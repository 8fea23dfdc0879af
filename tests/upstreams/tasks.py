"""A played OpenAI-compatible provider of embeddings, pictures, speech, transcripts and videos.

It answers as the public documentation says, and lies as ``fault`` says. ``asked`` of the server has
what it was sent.
"""

import asyncio
import base64
import json
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tests.upstreams.serving import Asked, Reply, Serving

VECTOR_LENGTH = 4


def png(grey: int = 128) -> bytes:
    """A picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, grey]))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def wav(seconds: float = 0.5, rate: int = 8000) -> bytes:
    """Silence: 16-bit, one channel."""
    data = bytes(2 * int(rate * seconds))
    fmt = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + fmt
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )


def mp4(seconds: float = 2.0) -> bytes:
    """As much of a video as says how long it is: ``ftyp``, and ``moov`` with its ``mvhd``."""
    body = struct.pack(">B3xIIII", 0, 0, 0, 1000, int(seconds * 1000)) + bytes(80)
    mvhd = struct.pack(">I", 8 + len(body)) + b"mvhd" + body
    moov = struct.pack(">I", 8 + len(mvhd)) + b"moov" + mvhd
    return struct.pack(">I", 16) + b"ftypisom\x00\x00\x02\x00" + moov


def vector_of(text: str) -> list[float]:
    """The same for the same text; exact in 32 bits."""
    seed = zlib.crc32(text.encode())
    return [((seed >> (8 * at)) % 256) / 256 - 0.5 for at in range(VECTOR_LENGTH)]


def form_of(asked: Asked) -> dict[str, list[tuple[str, str, bytes]]]:
    """A form as (file name, content type, content) by field, read by rule of RFC 7578."""
    kind = asked.headers["content-type"]
    found = re.search(r"boundary=([^;]+)", kind)
    assert found is not None
    fields: dict[str, list[tuple[str, str, bytes]]] = {}
    delimiter = b"--" + found[1].encode()
    parts = (b"\r\n" + asked.body).split(b"\r\n" + delimiter)
    assert parts[-1].strip() == b"--"
    for part in parts[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        text = head.decode()
        name = re.search(r' name="([^"]*)"', text)
        file = re.search(r'filename="([^"]*)"', text)
        type_ = re.search(r"(?i)content-type: (.*)", text)
        assert name is not None
        fields.setdefault(name[1], []).append(
            (file[1] if file else "", type_[1].strip() if type_ else "", content)
        )
    return fields


Spoil = Callable[[Any], Any]


@dataclass
class PlayedTasks:
    """The provider. Faults hold until they are taken back:

    ``status``: every answer is an error with it. ``body`` and ``kind``: what is sent in place of
    any answer. ``spoil``: changes a JSON answer before it is sent. ``hang``: nothing is ever
    answered; ``reached`` and ``left`` say that a call has come, and gone again. ``pictures``:
    ``b64_json``, ``gpt-image`` (with tokens), ``url`` or ``hyperbolic``. ``video_questions``: how
    many a job takes until ``video_ends``; ``poll_status``: refusals that come before.
    """

    status: int = 0
    body: bytes | None = None
    kind: str = "application/json"
    spoil: Spoil = lambda answer: answer
    hang: bool = False
    pictures: str = "b64_json"
    transcript_usage: dict[str, Any] | None = None
    video_questions: int = 1
    video_ends: dict[str, Any] = field(default_factory=lambda: {"status": "completed"})
    poll_status: list[int] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)

    async def __aenter__(self) -> "PlayedTasks":
        self.serving = await Serving(self._play).__aenter__()
        self._questions = 0
        self.reached, self.left = asyncio.Event(), asyncio.Event()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.serving.__aexit__(kind, error, trace)

    @property
    def base_url(self) -> str:
        return f"{self.serving.origin}/v1"

    @property
    def asked(self) -> list[Asked]:
        return self.serving.asked

    async def _play(self, asked: Asked, reply: Reply) -> None:
        if self.hang:
            self.reached.set()
            try:
                await reply.hang()
            finally:
                self.left.set()
        if self.status:
            error = {"error": {"message": "played", "type": "played", "code": str(self.status)}}
            await reply.answer(self.status, self.body or error, [*self.headers], self.kind)
        elif self.body is not None:
            await reply.answer(200, self.body, self.headers, self.kind)
        elif asked.path.startswith("/v1/videos") or asked.path.startswith("/v2/videos"):
            await self._play_video(asked, reply)
        else:
            await self._answer(asked, reply)

    async def _answer(self, asked: Asked, reply: Reply) -> None:
        path = asked.path.removeprefix("/v1")
        if path == "/embeddings":
            await self._json(reply, _embeddings(asked.json()))
        elif path == "/images/edits":
            form = form_of(asked)
            await self._json(reply, self._images(int(form.get("n", [("", "", b"1")])[0][2])))
        elif path in ("/images/generations", "/image/generation"):
            await self._json(reply, self._images(asked.json().get("n", 1)))
        elif path.startswith("/workflows/"):
            await reply.answer(200, png(), kind="image/png")
        elif path == "/audio/speech":
            await reply.answer(200, wav(), self.headers, "audio/wav")
        elif path == "/audio/transcriptions":
            await self._json(reply, self._transcript(form_of(asked)))
        elif path == "/files/picture.png":
            await reply.answer(200, png(7), kind="image/png")
        elif path == "/hf/acme/film":
            url = f"{self.serving.origin}/v1/files/film.mp4"
            await self._json(reply, {"video": {"video_url": url}})
        else:
            await reply.answer(404, {"error": {"message": f"no route {asked.path}"}})

    async def _json(self, reply: Reply, answer: Any) -> None:
        await reply.answer(200, json.dumps(self.spoil(answer)).encode(), self.headers, self.kind)

    def _images(self, count: int) -> dict[str, Any]:
        if self.pictures == "url":
            url = f"{self.serving.origin}/v1/files/picture.png"
            return {"created": 1, "data": [{"url": url} for _ in range(count)]}
        pictures = [base64.b64encode(png(at)).decode() for at in range(count)]
        if self.pictures == "hyperbolic":
            return {"images": [{"image": each} for each in pictures], "inference_time": 1.5}
        answer: dict[str, Any] = {
            "created": 1,
            "data": [{"b64_json": each, "revised_prompt": "better"} for each in pictures],
        }
        if self.pictures == "gpt-image":
            answer["data"] = [{"b64_json": each} for each in pictures]
            answer["usage"] = {
                "input_tokens": 50,
                "input_tokens_details": {"image_tokens": 40, "text_tokens": 10},
                "output_tokens": 272,
                "total_tokens": 322,
            }
        return answer

    def _transcript(self, form: dict[str, list[tuple[str, str, bytes]]]) -> dict[str, Any]:
        answer: dict[str, Any] = {"text": "Hello there, world."}
        if form["response_format"][0][2] == b"verbose_json":
            answer |= {
                "task": "transcribe",
                "language": "english",
                "duration": 2.5,
                "segments": [
                    {"id": 0, "start": 0.0, "end": 1.25, "text": " Hello there,"},
                    {"id": 1, "start": 1.25, "end": 2.5, "text": " world."},
                ],
            }
            if b"word" in [each[2] for each in form.get("timestamp_granularities[]", [])]:
                answer["words"] = [{"word": "Hello", "start": 0.0, "end": 0.5}]
        if self.transcript_usage is not None:
            answer["usage"] = self.transcript_usage
        return answer

    async def _play_video(self, asked: Asked, reply: Reply) -> None:
        job = {"id": "video_1", "object": "video", "status": "queued", "seconds": "4"}
        if asked.method == "POST":
            self._questions = 0
            await self._json(reply, job)
        elif asked.path.endswith("/content"):
            await reply.answer(200, mp4(4), kind="video/mp4")
        elif self.poll_status:
            await reply.answer(self.poll_status.pop(0), {"error": {"message": "played"}})
        else:
            self._questions += 1
            done = self._questions >= self.video_questions
            await asyncio.sleep(0)
            await self._json(reply, job | (self.video_ends if done else {"status": "in_progress"}))


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = body["input"]
    if isinstance(texts, str) or isinstance(texts[0], int):
        texts = [texts]
    data = []
    for at, text in enumerate(texts):
        vector: Any = vector_of(str(text))
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{VECTOR_LENGTH}f", *vector)).decode()
        data.append({"object": "embedding", "index": at, "embedding": vector})
    tokens = sum(len(text.split()) if isinstance(text, str) else len(text) for text in texts)
    return {
        "object": "list",
        "data": data[::-1],  # the indexes say the order
        "model": body["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
