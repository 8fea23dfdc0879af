"""``/api/usage``."""

from datetime import UTC, datetime
from typing import Any

from litestar import Request, get

from app.api.admin.asking import query_of, services_of
from app.api.admin.wire import UsageList, UsageQuery
from app.errors import InvalidRequest


@get("/usage")
async def show_usage(request: Request[Any, Any, Any]) -> UsageList:
    """What was used between two moments, grouped."""
    asked, services = query_of(request, UsageQuery), services_of(request)
    since_ms = moment_ms(asked.since, "since") if asked.since else 0
    until_ms = moment_ms(asked.until, "until") if asked.until else services.clock.now_ms() + 1
    groups = await services.usage.summary(asked.by, since_ms, until_ms)
    return UsageList(by=asked.by, since_ms=since_ms, until_ms=until_ms, data=groups)


def moment_ms(text: str, param: str) -> int:
    """Milliseconds of an ISO 8601 date or date and time; UTC unless it names a zone."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{param!r} is a date such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z, in"
            f" UTC unless it names a zone (found {text!a}).",
            param=param,
        ) from error
    return since_epoch.days * 86_400_000 + since_epoch.seconds * 1000
