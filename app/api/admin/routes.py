"""The ``/api`` surface in one table. Every route of it is for owners."""

from litestar import Router

from app.api.admin.keys import create_key, list_keys, revoke_key
from app.api.admin.models import list_models
from app.api.admin.usage import show_usage
from app.api.admin.users import add_user, list_users, set_tier
from app.api.auth import require_owner


def admin_router() -> Router:
    """A fresh router; guarded as a whole, so that a route cannot be added unguarded."""
    return Router(
        path="/api",
        guards=[require_owner],
        route_handlers=[
            list_users,
            add_user,
            set_tier,
            list_keys,
            create_key,
            revoke_key,
            list_models,
            show_usage,
        ],
    )
