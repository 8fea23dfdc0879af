"""The Hub, played by a small real server: what huggingface_hub asks of it, and its faults.

Models' info with the files' sizes and hashes; ``resolve`` with HEAD and GET, ranges, the headers
that the client reads, and large files behind a redirect, as the real one has them.
"""

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.upstreams.serving import Asked, Reply, Serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_CHUNK = 64 * 1024


@dataclass
class Repo:
    """One repository. ``private``: only for ``token``; ``gated``: its files are."""

    files: dict[str, bytes]
    commit: str = COMMIT
    licence: str = "apache-2.0"
    gated: bool = False
    private: bool = False
    small: int = 4096  # files up to this size are git's own, not large ones by SHA-256


@dataclass
class Faults:
    """What goes wrong. ``cut_after``: bytes after which the line is cut, each time, ``cuts`` times;
    ``reset``: by RST; ``pace_s``: a pause after each 64 KiB; ``liar``: names whose bytes are wrong.
    """

    cut_after: int | None = None
    cuts: int = 0
    reset: bool = False
    pace_s: float = 0.0
    liar: set[str] = field(default_factory=set)
    status: int | None = None
    no_ranges: bool = False


class PlayedHub:
    """``async with PlayedHub({"acme/tiny": Repo(...)}) as hub``."""

    def __init__(self, repos: dict[str, Repo], token: str = "hf_good") -> None:
        self.repos = repos
        self.token = token
        self.faults = Faults()
        self.serving = Serving(self._play)
        self.sent_bytes = 0

    @property
    def endpoint(self) -> str:
        return self.serving.origin

    @property
    def asked(self) -> list[Asked]:
        return self.serving.asked

    async def __aenter__(self) -> "PlayedHub":
        await self.serving.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.serving.__aexit__(*error)

    async def _play(self, asked: Asked, reply: Reply) -> None:
        path = unquote(asked.path)
        if self.faults.status is not None:
            return await reply.answer(self.faults.status, {"error": "out of order"})
        if asked.headers.get("authorization", f"Bearer {self.token}") != f"Bearer {self.token}":
            said = ("X-Error-Message", "Invalid credentials in Authorization header")
            return await reply.answer(401, {"error": "Invalid credentials"}, [said])
        if path.startswith("/cdn/"):
            return await self._content(asked, reply, *path.removeprefix("/cdn/").split("//"))
        if found := _INFO.fullmatch(path):
            return await self._info(asked, reply, found[1], found[2])
        if found := _RESOLVE.fullmatch(path):
            return await self._resolve(asked, reply, found[1], found[2], found[3])
        return await reply.answer(404, {"error": "Not Found"})

    def _denial(self, asked: Asked, name: str, *, files: bool) -> tuple[int, str] | None:
        """Status and error code, where the caller may not have it."""
        known = "authorization" in asked.headers
        repo = self.repos.get(name)
        if repo is None or (repo.private and not known):
            return (404 if known else 401), "RepoNotFound"
        if files and repo.gated and not known:
            return 401, "GatedRepo"
        return None

    async def _info(self, asked: Asked, reply: Reply, name: str, revision: str | None) -> None:
        denied = self._denial(asked, name, files=False)
        if denied:
            return await reply.answer(denied[0], {"error": "no"}, [("X-Error-Code", denied[1])])
        repo = self.repos[name]
        if revision not in {None, "main", repo.commit}:
            return await reply.answer(404, {"error": "no"}, [("X-Error-Code", "RevisionNotFound")])
        siblings = [self._sibling(repo, file) for file in repo.files]
        return await reply.answer(200, {
            "_id": "1", "id": name, "modelId": name, "sha": repo.commit, "private": repo.private,
            "gated": "auto" if repo.gated else False, "tags": [f"license:{repo.licence}"],
            "downloads": 0, "cardData": {"license": repo.licence}, "siblings": siblings,
        })  # fmt: skip

    def _sibling(self, repo: Repo, name: str) -> dict[str, Any]:
        data = repo.files[name]
        found: dict[str, Any] = {
            "rfilename": name,
            "size": len(data),
            "blobId": git_oid(data),
        }
        if len(data) > repo.small:
            found["lfs"] = {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}
        return found

    async def _resolve(
        self, asked: Asked, reply: Reply, name: str, revision: str, file: str
    ) -> None:
        denied = self._denial(asked, name, files=True)
        if denied:
            return await reply.answer(denied[0], {"error": "no"}, [("X-Error-Code", denied[1])])
        repo = self.repos[name]
        if file not in repo.files or revision not in {"main", repo.commit}:
            code = "EntryNotFound" if file not in repo.files else "RevisionNotFound"
            return await reply.answer(404, {"error": "no"}, [("X-Error-Code", code)])
        data = repo.files[file]
        commit = ("X-Repo-Commit", repo.commit)
        if len(data) <= repo.small:
            etag = self._sibling(repo, file)["blobId"]
            return await self._send(asked, reply, data, file, [commit, ("ETag", f'"{etag}"')])
        linked = [
            commit,
            ("X-Linked-Etag", f'"{_sha256(data)}"'),
            ("X-Linked-Size", str(len(data))),
            ("Location", f"http://localhost:{self.serving.port}/cdn/{name}//{file}"),
        ]
        return await reply.answer(302, b"", linked)

    async def _content(self, asked: Asked, reply: Reply, name: str, file: str) -> None:
        data = self.repos[name].files[file]
        await self._send(asked, reply, data, file, [("ETag", f'"{_sha256(data)}"')])

    async def _send(
        self, asked: Asked, reply: Reply, data: bytes, name: str, headers: list[tuple[str, str]]
    ) -> None:
        if name in self.faults.liar:
            data = data[:-1] + bytes([data[-1] ^ 1])
        status, begin = 200, 0
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        if wanted and not self.faults.no_ranges:
            status, begin = 206, int(wanted[1])
            headers = [
                *headers, ("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            ]  # fmt: skip
        length = ("Content-Length", str(len(data) - begin))
        reply._head(status, "application/octet-stream", [*headers, length])
        if asked.method == "HEAD":
            return await reply.writer.drain()
        for at in range(begin, len(data), _CHUNK):
            if self.faults.cuts and at - begin >= (self.faults.cut_after or 0):
                self.faults.cuts -= 1
                await (reply.reset() if self.faults.reset else reply.close())
            piece = data[at : at + _CHUNK]
            reply.writer.write(piece)
            await reply.writer.drain()
            self.sent_bytes += len(piece)
            if self.faults.pace_s:
                await asyncio.sleep(self.faults.pace_s)
        return None


def git_oid(data: bytes) -> str:
    """What git calls a file of that content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def safetensors(**tensors: bytes) -> bytes:
    """A file of such tensors, of single bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())
