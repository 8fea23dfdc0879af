"""``POST /api/restart``: start the program anew, without refusing a connection."""

from typing import Any

from litestar import Request, post

from app.errors import ConfigError, Unprocessable


@post("/restart", status_code=202)
async def restart(request: Request[Any, Any, Any]) -> Any:
    """Begin it, once the program has said that it can start.

    Otherwise nothing has changed, and the answer says what keeps it from starting.
    """
    begin = request.app.state.process.restart
    if begin is None:
        raise Unprocessable("No server runs here. Start one with `turnpike serve`.")
    try:
        return await begin()
    except ConfigError as error:
        raise Unprocessable(f"Nothing was restarted: {error.message}", code="bad_config") from error
