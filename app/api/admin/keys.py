"""``/api/keys``."""

from typing import Any

import msgspec
from litestar import Request, delete, get, post
from litestar.params import FromPath

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.wire import CreatedKey, KeyList, NewKey, Page
from app.identity.keys import KeyInfo


@get("/keys")
async def list_keys(request: Request[Any, Any, Any]) -> KeyList:
    """A page of the keys, without their secrets."""
    page = query_of(request, Page)
    keys = await services_of(request).keys.list(after=page.after, limit=page.limit)
    return KeyList(keys, keys[-1].id if len(keys) == page.limit else None)


@post("/keys")
async def create_key(request: Request[Any, Any, Any]) -> CreatedKey:
    """Make a key; it is in this answer and can never be read again."""
    asked = await body_of(request, NewKey)
    info, text = await services_of(request).keys.create(asked.user, asked.name)
    return CreatedKey(**msgspec.structs.asdict(info), key=text)


@delete("/keys/{key_id:str}", status_code=200)
async def revoke_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> KeyInfo:
    """End a key at once, named by its id or its prefix."""
    return await services_of(request).keys.revoke(key_id)
