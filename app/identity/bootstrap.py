"""The first start: an owner and a key to begin with."""

from app.errors import Conflict
from app.identity.keys import KeyStore
from app.identity.users import UserStore

OWNER_NAME = "owner"
OWNER_TIER = "pro"
KEY_NAME = "first start"


async def bootstrap_owner(users: UserStore, keys: KeyStore, *, make_key: bool = True) -> str | None:
    """Where nobody is an owner yet, make one and a key; the key, which cannot be read again.

    The owner goes on tier ``pro`` where there is one: one's own models on one's own machine
    should not stop at a free tier's credit. None when there is an owner already; one in an
    appliance without any key is what a start that was cut short leaves, and gets the key now.
    None also when a member has the owner's name: the operator has begun to set things up by hand;
    and without ``make_key``: where it would be shown is no place for a secret.
    """
    owner = await users.first_owner()
    if owner is None:
        tier = OWNER_TIER if OWNER_TIER in users.tiers else users.tiers[0]
        try:
            owner = await users.add(OWNER_NAME, tier, role="owner")
        except Conflict:
            return None
    elif await keys.list(limit=1):
        return None
    if not make_key:
        return None
    _, text = await keys.create(owner.name, KEY_NAME)
    return text
