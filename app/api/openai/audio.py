"""``POST /v1/audio/speech``: text → sound. ``POST /v1/audio/transcriptions``: sound → text."""

from functools import partial

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.answer import send_answer
from app.api.body import decode, read_json
from app.api.openai.task_calls import Asked, TaskCalls
from app.api.openai.task_wire import content_type_of, transcript_body
from app.api.openai.uploads import decode_tree, read_form, the_file
from app.api.openai.wire import served_by
from app.api.repeats import HEADER, key_of
from app.errors import InvalidRequest
from app.identity.principal import Principal
from plugins.tasks import Speech, SpeechRequest, Transcript, TranscriptionRequest

_DECISIVE = (b'"model"', b'"input"', b'"voice"')
_CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class SpeechRoute:
    """The handler of speech."""

    def __init__(self, tasks: TaskCalls, body_bytes_max: int) -> None:
        self._tasks = tasks
        self._body_bytes_max = body_bytes_max
        self._decoder = msgspec.json.Decoder(SpeechRequest)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        body = await read_json(scope, receive, self._body_bytes_max)
        request = decode(body, self._decoder, _DECISIVE)
        if any(name == HEADER for name, _ in scope["headers"]):
            raise InvalidRequest(
                "Idempotency-Key is not supported here: sound is not kept.",
                param="Idempotency-Key",
            )
        call, output = await self._tasks.serve(
            scope, receive, principal, Asked(request=request, body_bytes=len(body)), Speech
        )
        sound = await self._tasks.with_data(output.audio)
        kind = sound.media_type or _CONTENT_TYPES[request.response_format or "mp3"]
        await send_answer(
            send,
            200,
            sound.data or b"",
            content_type=kind.encode("ascii", "replace"),
            headers=served_by(call),
        )


class TranscriptionRoute:
    """The handler of transcriptions."""

    def __init__(self, tasks: TaskCalls, body_bytes_max: int) -> None:
        self._tasks = tasks
        self._body_bytes_max = body_bytes_max
        self._decoder = msgspec.json.Decoder(TranscriptionRequest, strict=False)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        form = await read_form(scope, receive, self._body_bytes_max, ("file",))
        sound = the_file(form, "file")
        if sound is None or not sound.data:
            raise InvalidRequest(
                "Missing required parameter: 'file'. Send the sound as a file of the form.",
                param="file",
                code="missing_required_parameter",
            )
        request = decode_tree({**form.tree, "file": {}}, self._decoder)
        request.file = sound
        shape = request.response_format or "json"
        if request.timestamp_granularities and shape != "verbose_json":
            raise InvalidRequest(
                "'timestamp_granularities' needs 'response_format' to be 'verbose_json'.",
                param="timestamp_granularities",
            )
        await self._tasks.answer(
            scope,
            receive,
            send,
            principal,
            Asked(request=request, body_bytes=form.body_bytes, key=key_of(scope, form.digest)),
            Transcript,
            partial(transcript_body, form=shape),
            content_type=content_type_of(shape),
        )
