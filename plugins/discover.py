"""Finds the plugins: the shipped ones, and installed packages that announce one.

A package announces a plugin with an entry point in the group ``turnpike.plugins`` that names a
``Plugin`` object::

    [project.entry-points."turnpike.plugins"]
    acme = "acme_turnpike:PLUGIN"
"""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from plugins.builtin import BUILTIN
from plugins.contract import CONTRACT_VERSION, Plugin

GROUP = "turnpike.plugins"


class PluginRefused(Exception):
    """A plugin that cannot be used. The message says which one, why, and what to do."""


def discover(installed: Iterable[EntryPoint] | None = None) -> dict[str, Plugin]:
    """Every plugin by its name. Raises PluginRefused.

    ``installed`` is for tests; without it the entry points of this environment are read.
    """
    found = {plugin.name: plugin for plugin in BUILTIN}
    for point in entry_points(group=GROUP) if installed is None else installed:
        plugin = _load(point)
        if plugin.name in found:
            raise PluginRefused(
                f"plugin {plugin.name!r} of {point.value!r}: the name is taken; "
                "a plugin must have a name of its own"
            )
        found[plugin.name] = plugin
    return found


def _load(point: EntryPoint) -> Plugin:
    where = f"plugin {point.name!r} of {point.value!r}"
    try:
        plugin = point.load()
    except Exception as error:  # a foreign module may raise anything
        raise PluginRefused(
            f"{where}: cannot be imported: {type(error).__name__}: {error}; "
            "uninstall or update its package"
        ) from error
    # A plugin built against another contract may not even be an instance of this one's ``Plugin``,
    # so its version is read before anything else of it.
    version = getattr(plugin, "contract_version", None)
    if version is not None and version != CONTRACT_VERSION:
        raise PluginRefused(
            f"{where}: written for contract version {version}, this Turnpike has version "
            f"{CONTRACT_VERSION}; install a release of it for this version"
        )
    if not isinstance(plugin, Plugin):
        raise PluginRefused(
            f"{where}: expected a plugins.contract.Plugin, found {type(plugin).__name__}"
        )
    return plugin
