"""Who a call acts as."""

import msgspec


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The result of authentication, kept for at most 60 s and dropped at once on a change.

    Whose money pays is found out in the transaction that places the hold. ``owner`` may use the
    admin routes.
    """

    user_id: str
    user_name: str
    key_id: str
    owner: bool = False
