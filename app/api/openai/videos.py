"""OpenAI's video API (openai/openai-openapi, ``/videos``): ``POST /v1/videos`` makes a job,
``GET /v1/videos/{id}`` says how it stands, ``GET /v1/videos/{id}/content`` is the video,
``DELETE /v1/videos/{id}`` forgets it, ``GET /v1/videos`` lists one's own.
"""

import asyncio
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.answer import send_answer, start_answer
from app.api.body import decode, read_json
from app.api.calls import Calls
from app.api.endpoint import call_id_of
from app.api.explain import explain_error
from app.api.openai.references import picture_of
from app.api.openai.uploads import decode_tree, is_form, read_form, the_file
from app.api.openai.video_jobs import LIVES_MS, VideoJob, VideoJobs
from app.api.repeats import key_of
from app.errors import CallError, InvalidRequest, MethodNotAllowed, NotFound
from app.gateway.serve import Gateway
from app.identity.principal import Principal
from app.ledger.entries import IdempotencyKey
from plugins.tasks import Media, VideoRequest

PIECE_BYTES = 256 * 1024
PAGE_MAX = 100
_PREFIX = "/v1/videos"
_REFERENCE = "input_reference"
_DECISIVE = (b'"model"', b'"seconds"', b'"size"')
_READ = ("GET", "HEAD")
_encode = msgspec.json.Encoder().encode


class Videos:
    """The handler of all of them; mounted, since it reads the path itself."""

    def __init__(
        self, gateway: Gateway, calls: Calls, jobs: VideoJobs, body_bytes_max: int
    ) -> None:
        self._gateway = gateway
        self._calls = calls
        self._jobs = jobs
        self._body_bytes_max = body_bytes_max
        self._objects = msgspec.json.Decoder(dict[str, Any])
        self._decoder = msgspec.json.Decoder(VideoRequest)
        self._lax = msgspec.json.Decoder(VideoRequest, strict=False)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        path = unquote(scope["raw_path"].decode("ascii", "replace")).removeprefix(_PREFIX)
        parts, method, user_id = path.strip("/").split("/"), scope["method"], principal.user_id
        job_id = parts[0]
        if not job_id:
            if _allowed(method, *_READ, "POST") == "POST":
                await self._create(scope, receive, send, principal)
            else:
                await self._list(scope, send, user_id)
        elif len(parts) == 1:
            if _allowed(method, *_READ, "DELETE") == "DELETE":
                await self._jobs.delete(user_id, job_id)
                gone = {"id": job_id, "object": "video.deleted", "deleted": True}
                await send_answer(send, 200, _encode(gone))
            else:
                await send_answer(send, 200, _encode(video(await self._jobs.get(user_id, job_id))))
        elif parts[1:] == ["content"]:
            _allowed(method, *_READ)
            _check_variant(scope)
            await _send_file(send, *await self._jobs.file_of(user_id, job_id))
        else:
            raise NotFound("There is nothing here; videos have 'content' only.")

    async def _create(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        request, body_bytes, key = await self._read(scope, receive)
        call = await self._calls.begin(scope, principal, request, body_bytes)
        job = VideoJob(
            id=f"video_{call_id_of(scope).replace('-', '')}",
            model=request.model,
            seconds=request.seconds or None,
            size=request.size or None,
            status="queued",
            created_at_ms=call.admitted_at_ms,
            completed_at_ms=None,
            expires_at_ms=call.admitted_at_ms + LIVES_MS,
            error_code=None,
            error_message=None,
            media_type=None,
            bytes=None,
        )
        before = await self._jobs.add(principal.user_id, job, key)
        if before is not None:
            headers = [(b"idempotency-replayed", b"true")]
            await send_answer(send, 200, _encode(video(before)), headers=headers)
            return
        try:
            failure = await self._jobs.follow(job.id, self._gateway.serve(call))
        except CallError as error:
            failure = error
        if failure is not None:
            await self._jobs.delete(principal.user_id, job.id)
            raise explain_error(call, failure) from failure.__cause__
        job = await self._jobs.get(principal.user_id, job.id)
        await send_answer(send, 200, _encode(video(job)))

    async def _read(
        self, scope: HTTPScope, receive: Receive
    ) -> tuple[VideoRequest, int, IdempotencyKey | None]:
        """The request, its length and its key. Raises InvalidRequest."""
        picture: Media | None
        if is_form(scope):
            form = await read_form(scope, receive, self._body_bytes_max, (_REFERENCE,))
            tree, picture = form.tree, the_file(form, _REFERENCE)
            body_bytes, key, decoder = form.body_bytes, key_of(scope, form.digest), self._lax
        else:
            body = await read_json(scope, receive, self._body_bytes_max)
            tree, picture = decode(body, self._objects, _DECISIVE), None
            body_bytes, key, decoder = len(body), key_of(scope, body), self._decoder
        reference = tree.pop(_REFERENCE, None)
        if reference is not None and picture is None:
            picture = picture_of(reference, _REFERENCE)
        request = decode_tree(tree, decoder)
        if picture is not None:
            if picture.data == b"":
                raise InvalidRequest("The picture is empty.", param=_REFERENCE)
            request.input_reference = picture
        return request, body_bytes, key

    async def _list(self, scope: HTTPScope, send: Send, user_id: str) -> None:
        query = _query(scope)
        limit, order = query.get("limit", "20"), query.get("order", "desc")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= PAGE_MAX:
            raise InvalidRequest(f"'limit' is a number from 1 to {PAGE_MAX}.", param="limit")
        if order not in ("asc", "desc"):
            raise InvalidRequest("'order' is 'asc' or 'desc'.", param="order")
        found = await self._jobs.list(
            user_id,
            after=query.get("after"),
            limit=int(limit) + 1,
            ascending=order == "asc",
        )
        page = found[: int(limit)]
        body = {
            "object": "list",
            "data": [video(job) for job in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(found) > len(page),
        }
        await send_answer(send, 200, _encode(body))


def video(job: VideoJob) -> dict[str, Any]:
    """OpenAI's ``VideoResource``. Prompts are not kept, and no provider says how far it is."""
    failed = job.status == "failed"
    return {
        "id": job.id,
        "object": "video",
        "created_at": job.created_at_ms // 1000,
        "completed_at": None if job.completed_at_ms is None else job.completed_at_ms // 1000,
        "expires_at": job.expires_at_ms // 1000 if job.status == "completed" else None,
        "status": job.status,
        "progress": 100 if job.status == "completed" else 0,
        "model": job.model,
        "seconds": job.seconds,
        "size": job.size,
        "prompt": None,
        "remixed_from_video_id": None,
        "error": {"code": job.error_code, "message": job.error_message} if failed else None,
    }


def _allowed(method: str, *methods: str) -> str:
    if method not in methods:
        raise MethodNotAllowed(f"{method} is not allowed here; use {', '.join(sorted(methods))}.")
    return method


def _query(scope: HTTPScope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _check_variant(scope: HTTPScope) -> None:
    if _query(scope).get("variant", "video") != "video":
        raise InvalidRequest(
            "Only the video itself is kept: 'variant' is 'video'.", param="variant"
        )


async def _send_file(send: Send, path: Path, media_type: str) -> None:
    """Send a file in pieces, so that none is held in memory whole. Raises NotFound."""
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError as error:
        raise NotFound("The video has expired.", code="video_without_content") from error
    with file:
        length = str(os.fstat(file.fileno()).st_size).encode()
        kind = media_type.encode("ascii", "replace")
        await start_answer(send, 200, [(b"content-type", kind), (b"content-length", length)])
        more = True
        while more:
            piece = await asyncio.to_thread(file.read, PIECE_BYTES)
            more = bool(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
