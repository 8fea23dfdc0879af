"""The ``/api`` surface in two tables: what is for owners, and what every key may ask about its own
user and orgs."""

from litestar import Router
from litestar.handlers import HTTPRouteHandler

from app.api.admin.billing import list_events, show_billing
from app.api.admin.clock import confirm_clock, show_clock
from app.api.admin.credit import adjust, give_credit, list_adjustments, list_credit
from app.api.admin.groups import (
    add_group,
    add_group_member,
    list_group_members,
    list_groups,
    remove_group,
    remove_group_member,
)
from app.api.admin.invoices import (
    close_invoices,
    list_invoices,
    preview_invoice,
    show_invoice,
)
from app.api.admin.keys import create_key, list_keys, revoke_key
from app.api.admin.limits import list_limits, remove_limit, set_limit
from app.api.admin.local_models import list_local_models, load_local_model, unload_local_model
from app.api.admin.members import add_member, list_members, remove_member, set_member_role
from app.api.admin.models import list_models
from app.api.admin.orgs import add_org, list_orgs, set_default_payer, set_org_tier, show_org
from app.api.admin.provider_keys import (
    forget_secrets,
    list_org_provider_keys,
    list_provider_keys,
    remove_org_provider_key,
    remove_provider_key,
    rotate_secrets,
    set_org_provider_key,
    set_provider_key,
)
from app.api.admin.reload import reload
from app.api.admin.restart import restart
from app.api.admin.routing_rules import (
    clear_preferred,
    confine,
    lift_confinement,
    list_confinements,
    set_preferred,
    show_preferred,
)
from app.api.admin.routing_state import list_providers
from app.api.admin.switches import list_switches, switch_off, switch_on
from app.api.admin.usage import list_calls, show_usage
from app.api.admin.users import add_user, list_users, set_tier
from app.api.auth import CALLERS_MAY, require_permission
from app.api.billing_costs import show_call_costs

# For owners and the command line.
OWNERS: list[HTTPRouteHandler] = [
    list_users,
    add_user,
    set_tier,
    list_keys,
    create_key,
    revoke_key,
    list_models,
    list_local_models,
    load_local_model,
    unload_local_model,
    add_org,
    set_org_tier,
    give_credit,
    list_credit,
    adjust,
    list_adjustments,
    close_invoices,
    show_clock,
    confirm_clock,
    reload,
    restart,
    rotate_secrets,
    forget_secrets,
    list_providers,
]

# For every good key. Each handler answers only what its principal may see or change.
CALLERS: list[HTTPRouteHandler] = [
    show_usage,
    list_calls,
    list_orgs,
    show_org,
    set_default_payer,
    list_members,
    add_member,
    set_member_role,
    remove_member,
    list_groups,
    add_group,
    remove_group,
    list_group_members,
    add_group_member,
    remove_group_member,
    list_switches,
    switch_off,
    switch_on,
    list_limits,
    set_limit,
    remove_limit,
    show_billing,
    list_events,
    list_invoices,
    preview_invoice,
    show_invoice,
    show_call_costs,
    list_provider_keys,
    set_provider_key,
    remove_provider_key,
    list_org_provider_keys,
    set_org_provider_key,
    remove_org_provider_key,
    list_confinements,
    confine,
    lift_confinement,
    show_preferred,
    set_preferred,
    clear_preferred,
]


def admin_router() -> Router:
    """Guarded as a whole, so that no route can be unguarded: what is not in ``CALLERS`` is for
    owners."""
    for handler in CALLERS:
        handler.opt[CALLERS_MAY] = True
    return Router(path="/api", guards=[require_permission], route_handlers=[*OWNERS, *CALLERS])
