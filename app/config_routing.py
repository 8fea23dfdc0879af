"""The tables about routing: aliases and policies, plugins from a folder, what may be reached, and
where the master key for stored secrets is.
"""

from typing import Annotated

from msgspec import Meta

from app.config_types import Identifier, Policy, Seconds, Table

AliasName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")]
Target = Annotated[str, Meta(min_length=1, max_length=256)]
FileName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\.py\Z")]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class Routing(Table, frozen=True):
    """How a model's providers are put in order, tried and watched.

    ``default_policy`` is for model names without a suffix. ``preferred`` is the order of providers
    for users who have set none; without it, the order of this file. ``aliases`` maps names to model
    names, suffix included. ``hedge_after_seconds`` asks a second provider too when the first has
    said nothing for so long.
    """

    default_policy: Policy = "fastest"
    preferred: list[Identifier] = []
    aliases: dict[AliasName, Target] = {}
    attempts_max: Annotated[int, Meta(ge=1, le=3)] = 3
    hedge_after_seconds: Seconds | None = None
    probes: bool = True
    probe_every_seconds: Seconds = 21_600.0
    probe_failing_every_seconds: Seconds = 3_600.0


class Plugins(Table, frozen=True):
    """Plugins that are single files in a folder. ``allow`` lists each with the hash of what was
    read and approved; a file that is not listed, or was changed since, is not run.
    """

    folder: str | None = None
    allow: dict[FileName, Digest] = {}


class Egress(Table, frozen=True):
    """What URLs in requests and in providers' answers may reach besides public addresses: networks
    such as ``10.0.0.0/8``."""

    allowed_networks: list[str] = []


class Secrets(Table, frozen=True):
    """The master key that provider keys are sealed under: 32 bytes as base64. Without one it is
    made at the first start, in ``master.key`` beside the database. ``old_master_keys`` can still
    open what was sealed before.
    """

    master_key: str | None = None
    old_master_keys: list[str] = []
