"""From a decoded request of any task but chat to its answer: the same for all of them."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.answer import JSON, send_answer
from app.api.calls import Calls
from app.api.envelope import error_body
from app.api.explain import explain_error, with_explanation
from app.api.openai.chat import BrokeOff
from app.api.openai.wire import served_by
from app.api.repeats import Repeats
from app.errors import CallError, UpstreamFailed
from app.gateway.call import Answer, Call, Repeatable
from app.gateway.serve import Gateway
from app.identity.principal import Principal
from app.ledger.entries import IdempotencyKey
from app.ledger.idempotency import Answered
from plugins.contract import AdapterError, Fetch
from plugins.tasks import Media, Output, TaskRequest

OutputT = TypeVar("OutputT", bound=Output)


class Asked(msgspec.Struct, kw_only=True):
    """One request, as its handler has read it."""

    request: TaskRequest
    body_bytes: int
    key: IdempotencyKey | None = None


class TaskCalls:
    """What the handlers share."""

    def __init__(self, gateway: Gateway, calls: Calls, repeats: Repeats, fetch: Fetch) -> None:
        self._gateway = gateway
        self._calls = calls
        self._repeats = repeats
        self._fetch = fetch

    async def answer(
        self,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        principal: Principal,
        asked: Asked,
        kind: type[OutputT],
        body: Callable[[Call, OutputT], bytes],
        *,
        content_type: bytes = JSON,
        complete: Callable[[OutputT], Awaitable[None]] | None = None,
    ) -> None:
        """Serve a call and answer with ``body``; what was answered before under the same
        Idempotency-Key is sent again. ``complete`` makes up what the adapter left out.
        """
        key, repeatable = asked.key, None
        if key is not None:
            if await self._repeat(send, principal, key, content_type):
                return

            def whole(call: Call, answer: Answer) -> bytes:
                return body(call, _checked(answer, kind))

            repeatable = Repeatable(key, whole, _broken)
        try:
            call, output = await self.serve(scope, receive, principal, asked, kind, repeatable)
        except Answered:  # between the look for an answer and the hold
            if key is None or not await self._repeat(send, principal, key, content_type):
                raise
            return
        if complete is not None:
            await complete(output)
        said = body(call, output)
        if content_type == JSON:
            said = with_explanation(said, call)
        await send_answer(send, 200, said, content_type=content_type, headers=served_by(call))

    async def serve(
        self,
        scope: HTTPScope,
        receive: Receive,
        principal: Principal,
        asked: Asked,
        kind: type[OutputT],
        repeatable: Repeatable | None = None,
    ) -> tuple[Call, OutputT]:
        """The call at its end, and what was made. Raises CallError."""
        call = await self._calls.begin(
            scope, principal, asked.request, asked.body_bytes, repeatable
        )
        try:
            pump = self._gateway.serve(call)
            await self._calls.first_bytes.wait(pump, receive)
            return call, _checked(pump.output, kind)
        except Answered:
            raise
        except CallError as error:
            raise explain_error(call, error) from error.__cause__

    async def with_data(self, media: Media) -> Media:
        """The media with its bytes, where the adapter gave a URL only. Raises UpstreamFailed."""
        if media.data is not None:
            return media
        try:
            return await self._fetch(media.url or "")
        except AdapterError as error:
            raise UpstreamFailed(
                "The provider's result could not be fetched.", code="result_not_fetched"
            ) from error

    async def _repeat(
        self, send: Send, principal: Principal, key: IdempotencyKey, content_type: bytes
    ) -> bool:
        """Send the answer that this request got before; whether there is one."""
        before = await self._repeats.find(principal.user_id, key)
        if before is None:
            return False
        if not before.body:
            raise BrokeOff
        headers = [(b"idempotency-replayed", b"true")]
        if before.status != 200:
            headers.append((b"x-should-retry", b"false"))
            content_type = JSON
        await send_answer(
            send, before.status, before.body, content_type=content_type, headers=headers
        )
        return True


def _broken(call: Call) -> tuple[int, bytes]:
    error = BrokeOff()
    return error.status, error_body(error, call.id)


def _checked(found: object, kind: type[OutputT]) -> OutputT:
    """What was made, if it is what was asked for: an adapter may be anybody's."""
    if not isinstance(found, kind):
        raise UpstreamFailed("The provider's adapter answered with something else.")
    return found
