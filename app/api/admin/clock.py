"""``/api/clock``."""

from typing import Any

from litestar import Request, get, post

from app.api.admin.asking import services_of
from app.ledger.time import ClockState


@get("/clock")
async def show_clock(request: Request[Any, Any, Any]) -> ClockState:
    """How the ledger's time stands beside the machine's clock."""
    return services_of(request).clock.state()


@post("/clock/confirm", status_code=200)
async def confirm_clock(request: Request[Any, Any, Any]) -> ClockState:
    """Believe the machine's clock as it is now; without a doubt nothing changes."""
    return services_of(request).clock.confirm()
