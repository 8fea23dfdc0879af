"""The first start: an owner and a key to begin with."""

from app.identity.keys import KeyStore
from app.identity.users import UserStore

OWNER_NAME = "owner"
OWNER_TIER = "pro"
KEY_NAME = "first start"


async def bootstrap_owner(users: UserStore, keys: KeyStore) -> str | None:
    """With nobody there, make the owner and one key; the key, which cannot be read again.

    The owner goes on tier ``pro`` where there is one: one's own models on one's own machine
    should not stop at a free tier's credit. None when somebody is there already; an owner
    without any key is what a start that was cut short leaves, and gets the key now.
    """
    oldest = await users.list(limit=1)
    if not oldest:
        tier = OWNER_TIER if OWNER_TIER in users.tiers else users.tiers[0]
        oldest = [await users.add(OWNER_NAME, tier, role="owner")]
    if oldest[0].role != "owner" or await keys.list(limit=1):
        return None
    _, text = await keys.create(oldest[0].name, KEY_NAME)
    return text
