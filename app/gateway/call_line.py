"""The log's line about each call, at its end: whose it was, who served it, how it ended, its cost.

It says nothing of what was asked or answered. Requests that are refused before they are a call have
theirs from ``app.api.endpoint``.
"""

import logging

from app.clock import Clock
from app.errors import CallError
from app.gateway.call import Call
from app.ledger.entries import UsageRow

log = logging.getLogger("turnpike.calls")


def log_ended(
    call: Call, clock: Clock, failure: CallError | None, row: UsageRow | None, cost_nano_usd: int
) -> None:
    """Write the line, where the log has such lines. ``row`` is None for a call that found no money
    to hold, or lost its task: then it is told by its plan."""
    if not log.isEnabledFor(logging.INFO):
        return
    said: dict[str, object] = {
        "call_id": call.id,
        "user_id": call.principal.user_id,
        "key_id": call.principal.key_id,
        "status": 200 if failure is None else failure.status,
    }
    if call.trace is not None:
        said["trace_id"] = call.trace.trace_id
    if failure is not None:
        failure.logged = True
        said["code"] = failure.code
    if row is None:
        offer = call.route.offers[0]
        said["model"] = offer.model
        said["duration_ms"] = (clock.monotonic_ns() - call.started_ns) // 1_000_000
    else:
        said["payer_id"] = row.payer_id
        said["model"], said["provider"] = row.model, row.provider
        said["outcome"] = row.outcome.value
        said["attempts"] = row.attempts
        said["duration_ms"] = row.latency_ms
        if row.first_token_ms is not None:
            said["first_token_ms"] = row.first_token_ms
        said["input_tokens"], said["output_tokens"] = row.input_tokens, row.output_tokens
        said["cost_nano_usd"] = cost_nano_usd
    log.info("call ended", extra=said)
