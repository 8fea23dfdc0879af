"""Where a configuration refers to secrets, so that they can be checked, and never shown."""

import re
from collections.abc import Iterator
from datetime import time
from typing import Any, NamedTuple

import msgspec

from app.config import Config
from app.config_faults import Steps

NOT_SHOWN = "(not shown)"
_REFERENCE = re.compile(r"^(env|file):.+", re.DOTALL)
_IN_URL = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/@]*@", re.IGNORECASE)
_TELLING = re.compile(r"key|token|secret|passw|authorization|credential", re.IGNORECASE)


class Reference(NamedTuple):
    """One secret: where the file names it, and what it says, as ``env:NAME`` or ``file:PATH``."""

    steps: Steps
    value: str


def references(config: Config) -> Iterator[Reference]:
    """All of them, in the order of the tables."""
    for at, provider in enumerate(config.providers):
        here: Steps = ("providers", at)
        if provider.api_key is not None:
            yield Reference((*here, "api_key"), provider.api_key)
        for n, each in enumerate(provider.api_keys):
            yield Reference((*here, "api_keys", n, "key"), each.key)
        if provider.billing is not None and provider.billing.api_key is not None:
            yield Reference((*here, "billing", "api_key"), provider.billing.api_key)
    if config.secrets.master_key is not None:
        yield Reference(("secrets", "master_key"), config.secrets.master_key)
    for at, old in enumerate(config.secrets.old_master_keys):
        yield Reference(("secrets", "old_master_keys", at), old)
    if config.webhook.secret is not None:
        yield Reference(("webhook", "secret"), config.webhook.secret)
    if config.local.hub.token is not None:
        yield Reference(("local", "hub", "token"), config.local.hub.token)
    for name, value in config.tracing.headers.items():
        yield Reference(("tracing", "headers", name), value)


def shown_value(config: Config, steps: Steps, value: Any) -> Any:
    """A value of the configuration as it may be shown: a secret only as a reference to it.

    That is what the known secrets must be anyway. Names and passwords in URLs are taken out, and so
    are values of a plugin's settings whose names sound like secrets.
    """
    if isinstance(value, list):
        return [shown_value(config, (*steps, n), each) for n, each in enumerate(value)]
    if not isinstance(value, str) or _REFERENCE.match(value):
        return value
    if any(each.steps == steps for each in references(config)):
        return NOT_SHOWN
    if "settings" in steps and any(_TELLING.search(str(step)) for step in steps):
        return NOT_SHOWN
    return _IN_URL.sub(rf"\1{NOT_SHOWN}@", value)


def is_private(config: Config) -> bool:
    """Whether the file holds something that others should not read."""
    return any(
        NOT_SHOWN in str(shown_value(config, steps, value))
        for steps, value in leaves(config)
        if isinstance(value, str | list)
    )


def leaves(config: Config) -> Iterator[tuple[Steps, Any]]:
    """Each setting and its value, those that are not set left out; a list of values is one."""
    yield from leaves_of(msgspec.to_builtins(config, builtin_types=(time,)), ())


def leaves_of(value: Any, here: Steps) -> Iterator[tuple[Steps, Any]]:
    """The same of a decoded file, or a part of it."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves_of(inner, (*here, key))
    elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        for at, inner in enumerate(value):
            yield from leaves_of(inner, (*here, at))
    elif value is not None:
        yield here, value
