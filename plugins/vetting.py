"""What is asked of every plugin that is not shipped, wherever it comes from."""

import re

from plugins.contract import CONTRACT_VERSION, Plugin, ProviderSettings

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_WORDS_MAX = 300


class PluginRefused(Exception):
    """A plugin that cannot be used. The message says which one, why, and what to do."""


def vet(found: object, where: str, instead: str) -> Plugin:
    """``found`` as a plugin of this contract. ``where`` names it and ``instead`` says what to do
    about another contract version. Raises PluginRefused.
    """
    # A plugin built against another contract may not even be an instance of this one's ``Plugin``,
    # so its version is read before anything else of it.
    version = getattr(found, "contract_version", None)
    if version is not None and version != CONTRACT_VERSION:
        raise PluginRefused(
            f"{where}: written for contract version {version}, this Turnpike has version "
            f"{CONTRACT_VERSION}; {instead}"
        )
    if not isinstance(found, Plugin):
        raise PluginRefused(
            f"{where}: expected a plugins.contract.Plugin, found {type(found).__name__}"
        )
    # Structs do not check their fields when they are made.
    name: object = found.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginRefused(
            f"{where}: {str(name)[:80]!r} is no name for a plugin; "
            'use lower-case letters, digits and "._-"'
        )
    settings: object = found.settings
    if not isinstance(settings, type) or not issubclass(settings, ProviderSettings):
        raise PluginRefused(f"{where}: its settings are not a class of ProviderSettings")
    if not callable(found.build):
        raise PluginRefused(f"{where}: its build cannot be called")
    return found


def said(error: BaseException) -> str:
    """What a foreign module raised, in one short line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:_WORDS_MAX]
