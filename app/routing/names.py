"""Model names as clients write them: ``org/name``, ``org/name:provider``, ``org/name:policy``, or
an alias for any of these (huggingface/hub-docs, inference-providers: its router's grammar)."""

from collections.abc import Mapping

import msgspec

FASTEST = "fastest"
CHEAPEST = "cheapest"
PREFERRED = "preferred"
LOCAL = "local"
POLICIES = frozenset({FASTEST, CHEAPEST, PREFERRED, LOCAL})
ALIAS_DEPTH_MAX = 4


class Name(msgspec.Struct, frozen=True):
    """A model and what comes behind the colon: a policy, a provider, or nothing (both None)."""

    model: str
    policy: str | None = None
    provider: str | None = None


def read(text: str, aliases: Mapping[str, str]) -> Name:
    """The name that is meant. A suffix that the client gives wins over the alias's own."""
    model, colon, suffix = text.partition(":")
    if aliases:
        for _ in range(ALIAS_DEPTH_MAX):
            target = aliases.get(model)
            if target is None:
                break
            model, colon_there, suffix_there = target.partition(":")
            if not colon:
                colon, suffix = colon_there, suffix_there
    if not colon:
        return Name(model)
    return Name(model, policy=suffix) if suffix in POLICIES else Name(model, provider=suffix)
