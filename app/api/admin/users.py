"""``/api/users``."""

from typing import Any

from litestar import Request, get, post, put
from litestar.params import FromPath

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.wire import NewTier, NewUser, Page, UserList
from app.identity.users import User


@get("/users")
async def list_users(request: Request[Any, Any, Any]) -> UserList:
    """A page of the users."""
    page = query_of(request, Page)
    users = await services_of(request).users.list(after=page.after, limit=page.limit)
    return UserList(users, users[-1].id if len(users) == page.limit else None)


@post("/users")
async def add_user(request: Request[Any, Any, Any]) -> User:
    """Make a user."""
    asked = await body_of(request, NewUser)
    return await services_of(request).users.add(asked.name, asked.tier, asked.role)


@put("/users/{name:str}/tier")
async def set_tier(request: Request[Any, Any, Any], name: FromPath[str]) -> User:
    """Put a user on another tier, at once."""
    asked, services = await body_of(request, NewTier), services_of(request)
    user = await services.users.set_tier(name, asked.tier)
    await services.ledger.catch_up([user.id])
    return user
