"""``POST /v1/chat/completions``: decode once, build the call, hand it to the gateway, answer."""

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.answer import send_answer, start_answer
from app.api.body import decode, read_json
from app.api.calls import Calls
from app.api.envelope import error_body
from app.api.explain import explain_error
from app.api.openai.wire import DONE, ChunkFrames, broken_chunk, completion_body, served_by
from app.api.repeats import Repeats, as_stream, key_of
from app.api.sse import STREAM_HEADERS, stream
from app.errors import CallError, InvalidRequest, UpstreamFailed
from app.gateway.call import Call, Repeatable
from app.gateway.serve import Gateway
from app.identity.principal import Principal
from app.ledger.entries import IdempotencyKey, StoredAnswer
from app.ledger.idempotency import Answered
from plugins.chat import ChatRequest

# A request that names one of these twice would be read differently by different parsers.
_DECISIVE = (b'"model"', b'"max_tokens"', b'"max_completion_tokens"', b'"n"', b'"stream"')


class Chat:
    """The route's handler."""

    def __init__(
        self,
        gateway: Gateway,
        calls: Calls,
        repeats: Repeats,
        body_bytes_max: int,
        heartbeat_s: float,
    ) -> None:
        self._gateway = gateway
        self._calls = calls
        self._repeats = repeats
        self._body_bytes_max = body_bytes_max
        self._heartbeat_s = heartbeat_s
        self._decoder = msgspec.json.Decoder(ChatRequest)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        body = await read_json(scope, receive, self._body_bytes_max)
        request = decode(body, self._decoder, _DECISIVE)
        _check(request)
        key = key_of(scope, body)
        if key is not None and await self._repeat(send, principal, request, key):
            return
        repeatable = None if key is None else Repeatable(key, completion_body, _broken)
        call = await self._calls.begin(scope, principal, request, len(body), repeatable)
        try:
            pump = self._gateway.serve(call)
            await self._calls.first_bytes.wait(pump, receive)
        except Answered:  # between the look for an answer and the hold
            if key is None or not await self._repeat(send, principal, request, key):
                raise
            return
        except CallError as error:
            raise explain_error(call, error) from error.__cause__
        headers = served_by(call)
        if not call.streamed:
            await send_answer(send, 200, completion_body(call, pump.choices), headers=headers)
            return
        options = request.stream_options
        with_usage = bool(options and options.include_usage)
        frames = ChunkFrames(call, with_usage=with_usage)

        def error_frame(error: CallError) -> bytes:
            # No [DONE] after an error: a client must not take the text for a whole answer (I11).
            return b"data: " + broken_chunk(explain_error(call, error), call) + b"\n\n"

        await stream(
            pump,
            receive,
            send,
            headers=headers,
            heartbeat_s=self._heartbeat_s,
            frames=frames.frames,
            last_frames=lambda: frames.last_frame() + DONE,
            error_frame=error_frame,
        )

    async def _repeat(
        self, send: Send, principal: Principal, request: ChatRequest, key: IdempotencyKey
    ) -> bool:
        """Send the answer that this request got before; whether there is one."""
        before = await self._repeats.find(principal.user_id, key)
        if before is not None:
            if not before.body:
                raise BrokeOff
            await _send_again(send, request, before)
        return before is not None


class BrokeOff(UpstreamFailed):
    """What repeats of a call that broke off are told: trying again would be paid for twice."""

    code = "answer_broke_off"
    retryable = False

    def __init__(self) -> None:
        super().__init__(
            "The answer to the first request with this Idempotency-Key broke off. What had been"
            " delivered was charged. Use a new key to ask again."
        )


def _broken(call: Call) -> tuple[int, bytes]:
    error = BrokeOff()
    return error.status, error_body(error, call.id)


async def _send_again(send: Send, request: ChatRequest, before: StoredAnswer) -> None:
    """Send a stored answer, as a stream where that is asked for."""
    headers = [(b"idempotency-replayed", b"true")]
    if request.stream is not True or before.status != 200:
        if before.status != 200:
            headers.append((b"x-should-retry", b"false"))
        await send_answer(send, before.status, before.body, headers=headers)
        return
    options = request.stream_options
    frames = as_stream(before.body, with_usage=bool(options and options.include_usage))
    await start_answer(send, 200, [*STREAM_HEADERS, *headers])
    await send({"type": "http.response.body", "body": frames, "more_body": False})


def _check(request: ChatRequest) -> None:
    """Rules between parameters, as OpenAI has them."""
    if request.stream_options and request.stream is not True:
        raise InvalidRequest(
            "'stream_options' is only allowed when 'stream' is true.", param="stream_options"
        )
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequest("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    for at, message in enumerate(request.messages):
        if isinstance(message.content, list):
            for n, part in enumerate(message.content):
                kind = part.get("type")
                where = f"messages[{at}].content[{n}]"
                if not isinstance(kind, str):
                    raise InvalidRequest(f"{where} has no 'type'.", param=f"{where}.type")
                if kind == "text" and not isinstance(part.get("text"), str):
                    raise InvalidRequest(f"{where}.text must be a string.", param=f"{where}.text")
        elif not isinstance(message.content, str) and message.role in {"user", "system"}:
            where = f"messages[{at}].content"
            raise InvalidRequest(f"{where} must be a string or a list of parts.", param=where)
