"""``POST /api/reload``: read the configuration file again."""

from typing import Any

from litestar import Request, post

from app.errors import ConfigError, Unprocessable


@post("/reload", status_code=200)
async def reload(request: Request[Any, Any, Any]) -> Any:
    """Take over what has changed; which tables did, and which of them wait for a restart.

    A file with a mistake in it changes nothing; the answer says where it is.
    """
    try:
        return await request.app.state.process.reload()
    except ConfigError as error:
        raise Unprocessable(f"Nothing was changed: {error.message}", code="bad_config") from error
