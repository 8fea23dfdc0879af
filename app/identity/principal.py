"""Who a call acts as."""

import msgspec


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The result of authentication, kept for at most 60 s and dropped at once on a change.

    ``payer_id`` is whose money pays: the user. ``tier`` is the payer's. ``owner`` may use the
    admin routes.
    """

    user_id: str
    user_name: str
    key_id: str
    payer_id: str
    tier: str
    owner: bool = False
