"""Requests that were answered with an error: counted for the metrics, and one log line each.

What the error says may repeat the request, so only its code is logged; a call that got as far as
having a task of its own has its line from ``app.gateway.call_line``.
"""

import logging

from litestar.types import HTTPScope

from app.api.traced import trace_of
from app.errors import CallError
from app.identity.principal import Principal
from app.metering.tally import Tally

log = logging.getLogger("turnpike.calls")


class Refusals:
    """Notes them."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def note(self, scope: HTTPScope, principal: Principal | None, error: CallError) -> None:
        """An error answers the request; nothing of an answer was sent before. The principal is
        None where the error is that there is none."""
        code = error.code or error.type
        self._tally.refused[(str(error.status), code)] += 1
        if error.logged or not log.isEnabledFor(logging.INFO):
            return
        said: dict[str, object] = {
            "call_id": scope["state"]["call_id"],
            "status": error.status,
            "code": code,
        }
        trace = trace_of(scope)
        if trace is not None:
            said["trace_id"] = trace.trace_id
        if principal is not None:
            said["user_id"], said["key_id"] = principal.user_id, principal.key_id
        log.info("call refused", extra=said)
