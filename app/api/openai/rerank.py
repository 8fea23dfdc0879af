"""``POST /v1/rerank``: a query and documents to the documents' order, best first.

Cohere's and Jina's shape, which vLLM, llama.cpp's server and text-generation routers speak too:
``results`` with ``index`` and ``relevance_score``. OpenAI's API has no such route.
"""

from functools import partial
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.body import decode, read_json
from app.api.explain import FIELD, explained
from app.api.openai.task_calls import Asked, TaskCalls
from app.api.repeats import key_of
from app.gateway.call import Call
from app.identity.principal import Principal
from plugins.tasks import Ranking, RerankRequest

_DECISIVE = (b'"model"', b'"query"', b'"documents"')
_encode = msgspec.json.Encoder().encode


class RerankRoute:
    """The route's handler."""

    def __init__(self, tasks: TaskCalls, body_bytes_max: int) -> None:
        self._tasks = tasks
        self._body_bytes_max = body_bytes_max
        self._decoder = msgspec.json.Decoder(RerankRequest)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        body = await read_json(scope, receive, self._body_bytes_max)
        request = decode(body, self._decoder, _DECISIVE)
        await self._tasks.answer(
            scope,
            receive,
            send,
            principal,
            Asked(request=request, body_bytes=len(body), key=key_of(scope, body)),
            Ranking,
            partial(rerank_body, request=request),
        )


def rerank_body(call: Call, output: Ranking, *, request: RerankRequest) -> bytes:
    """The best ``top_n`` documents, all of them without it; of equal ones the earlier first."""
    scores = output.scores
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    if isinstance(request.top_n, int):
        order = order[: request.top_n]
    texts = request.texts()
    results: list[dict[str, Any]] = []
    for at in order:
        result: dict[str, Any] = {"index": at, "relevance_score": scores[at]}
        if request.return_documents is True:
            result["document"] = {"text": texts[at]}
        results.append(result)
    usage = call.usage
    tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    body: dict[str, Any] = {
        "id": call.id,
        "object": "list",
        "model": call.offer.model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    if call.explain:
        body[FIELD] = explained(call)
    return _encode(body)
