"""What the routes about routing take and give, for their handlers and for the CLI.

Imports no web framework. Times are milliseconds since 1970-01-01 UTC.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.admin.wire import Name
from app.identity.confined_subjects import SubjectKind
from app.identity.confinement import Confinement
from app.routing.discovery import Discovery
from app.routing.key_pools import KeyState
from app.routing.probe_results import ProbeResult

LabelList = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=32)]], Meta(min_length=1, max_length=32)
]
ProviderNames = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(min_length=1, max_length=64)
]


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or a query; what it does not know is refused."""


class NewConfinement(_Asked, frozen=True):
    """``PUT /api/confinements``."""

    kind: SubjectKind
    subject: Name
    labels: LabelList


class ConfinementQuery(_Asked, frozen=True):
    """Which confinement is lifted."""

    kind: SubjectKind
    subject: Name


class ConfinementList(msgspec.Struct, frozen=True):
    """Those that the asker may see."""

    data: list[Confinement]


class NewPreferredOrder(_Asked, frozen=True):
    """``PUT /api/preferred``: providers, best first. Owners name the user; others are it."""

    providers: ProviderNames
    user: Name | None = None


class PreferredQuery(_Asked, frozen=True):
    """Whose order; without it, the asker's own."""

    user: Name | None = None


class ProviderQuery(_Asked, frozen=True):
    """Which provider; without it, all of them."""

    provider: Annotated[str, Meta(max_length=64)] = ""


class OfferLine(msgspec.Struct, frozen=True, kw_only=True):
    """How an offer does. ``circuit`` is closed, open, or half_open: the next call is its trial.

    ``opens_in_s`` is how long an open one stays so. ``first_token_ms`` and ``tokens_per_second``
    are moving means of calls and probes.
    """

    model: str
    labels: list[str]
    circuit: str
    opens_in_s: float
    first_token_ms: float | None
    tokens_per_second: float | None
    probe: ProbeResult | None


class ProviderLine(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider does: its keys (never a part of one), what it was asked for, its offers.

    Keys are only known to a server that runs; the configuration names them.
    """

    provider: str
    plugin: str
    keys: list[KeyState]
    discovery: Discovery | None
    offers: list[OfferLine]


class ProviderList(msgspec.Struct, frozen=True):
    """In the order of the configuration, this machine first."""

    data: list[ProviderLine]
