"""Words that the tables of the TOML file are written in."""

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

Identifier = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
ModelName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,2}\Z")
]
Usd = Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?\Z")]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/]+")]
ProcessBytes = Annotated[int, Meta(ge=64 << 20)] | Literal["auto", "off"]
HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}\Z")]
Moment = Annotated[
    str,
    Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:]{5,8}(\.0+)?(Z|[+-][0-9:]{5})?)?\Z"),
]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Task = Literal[
    "conversational",
    "feature-extraction",
    "text-to-image",
    "image-to-image",
    "text-to-video",
    "automatic-speech-recognition",
    "text-to-speech",
]
Modality = Literal["text", "image", "audio", "video", "file"]
Label = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}\Z")]
Policy = Literal["fastest", "cheapest", "preferred", "local"]
Feature = Literal["sso", "audit_log", "resource_groups", "spending_limits", "provider_switches"]
FEATURES: tuple[Feature, ...] = get_args(Feature)


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Any table of the file."""
