"""``POST /v1/embeddings``: texts, or texts as tokens, to vectors."""

from functools import partial

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.body import decode, read_json
from app.api.openai.task_calls import Asked, TaskCalls
from app.api.openai.task_wire import embeddings_body
from app.api.repeats import key_of
from app.errors import InvalidRequest
from app.identity.principal import Principal
from plugins.tasks import EmbeddingRequest, Embeddings

_DECISIVE = (b'"model"', b'"input"', b'"dimensions"')


class EmbeddingRoute:
    """The route's handler."""

    def __init__(self, tasks: TaskCalls, body_bytes_max: int) -> None:
        self._tasks = tasks
        self._body_bytes_max = body_bytes_max
        self._decoder = msgspec.json.Decoder(EmbeddingRequest)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        body = await read_json(scope, receive, self._body_bytes_max)
        request = decode(body, self._decoder, _DECISIVE)
        check_input(request)
        await self._tasks.answer(
            scope,
            receive,
            send,
            principal,
            Asked(request=request, body_bytes=len(body), key=key_of(scope, body)),
            Embeddings,
            partial(embeddings_body, as_base64=request.encoding_format == "base64"),
        )


def check_input(request: EmbeddingRequest) -> None:
    """A list is of texts, of token numbers (one text), or of lists of token numbers; never mixed.

    Raises InvalidRequest.
    """
    if isinstance(request.input, str):
        return
    kinds = {type(each) for each in request.input}
    if len(kinds) > 1:
        raise InvalidRequest(
            "'input' is a text, a list of texts, a list of tokens, or a list of lists of tokens;"
            " these cannot be mixed.",
            param="input",
        )
    if kinds == {list} and not all(request.input):
        at = next(at for at, each in enumerate(request.input) if not each)
        raise InvalidRequest("A list of tokens must not be empty.", param=f"input[{at}]")
    if kinds == {str} and not all(request.input):
        at = next(at for at, each in enumerate(request.input) if not each)
        raise InvalidRequest("A text must not be empty.", param=f"input[{at}]")
