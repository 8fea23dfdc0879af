"""``POST /api/billing/costs``: what the caller's own calls cost, in Hugging Face's partner billing
protocol, so that one appliance can be another one's provider.

An id is that of the ``Inference-Id`` header. Ids without an answer are left out; asked again, the
same id has the same cost.
"""

from typing import Annotated, Any

import msgspec
from litestar import Request, post
from msgspec import Meta

from app.api.admin.asking import services_of
from app.api.auth import principal_of
from app.api.body import decode, read_json

IDS_MAX = 10_000
BODY_BYTES_MAX = 1024 * 1024


class AskedCosts(msgspec.Struct, frozen=True):
    """The body. Fields that the protocol may get later are passed over."""

    request_ids: Annotated[list[str], Meta(max_length=IDS_MAX)] = msgspec.field(name="requestIds")


class CallCost(msgspec.Struct, frozen=True):
    """What one call cost."""

    request_id: str = msgspec.field(name="requestId")
    cost_nano_usd: int = msgspec.field(name="costNanoUsd")


class CallCosts(msgspec.Struct, frozen=True):
    """The answer, in the order of the request."""

    requests: list[CallCost]


_decoder = msgspec.json.Decoder(AskedCosts)


@post("/billing/costs", status_code=200)
async def show_call_costs(request: Request[Any, Any, Any]) -> CallCosts:
    """The costs of those of these calls that are the caller's and have ended."""
    body = await read_json(request.scope, request.receive, BODY_BYTES_MAX)
    asked = decode(body, _decoder, [b'"requestIds"'])
    costs = await services_of(request).costs.of(principal_of(request).user_id, asked.request_ids)
    return CallCosts([CallCost(call_id, cost) for call_id, cost in costs.items()])
