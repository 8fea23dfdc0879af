"""Finds the plugins: the shipped ones, installed packages that announce one, and the allowed files
of the configured folder (see ``drop_in.py``).

A package announces a plugin with an entry point in the group ``turnpike.plugins`` that names a
``Plugin`` object::

    [project.entry-points."turnpike.plugins"]
    acme = "acme_turnpike:PLUGIN"
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

from plugins.builtin import BUILTIN
from plugins.contract import Plugin
from plugins.drop_in import load
from plugins.vetting import PluginRefused, said, vet

GROUP = "turnpike.plugins"
Source = Literal["shipped", "installed", "drop-in"]


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin and where it comes from; ``where`` is the entry point or the file, if it has one."""

    plugin: Plugin
    source: Source
    where: str = ""


def discover(
    installed: Iterable[EntryPoint] | None = None,
    *,
    folder: Path | None = None,
    allow: Mapping[str, str] | None = None,
) -> dict[str, Plugin]:
    """Every plugin by its name. Raises PluginRefused.

    ``installed`` is for tests; without it the entry points of this environment are read. ``allow``
    are files of ``folder`` with the hashes of what may be run.
    """
    found = find(installed)
    if folder is not None:
        for file, plugin in load(folder, allow or {}).items():
            add(found, Found(plugin, "drop-in", str(folder / file)))
    elif allow:
        raise PluginRefused(
            "plugins.allow lists files, but plugins.folder is not set; set it, or take them out"
        )
    return {name: each.plugin for name, each in found.items()}


def find(installed: Iterable[EntryPoint] | None = None) -> dict[str, Found]:
    """The shipped and the installed ones, by name. Raises PluginRefused."""
    found: dict[str, Found] = {}
    for plugin in BUILTIN:
        add(found, Found(plugin, "shipped"))
    for point in entry_points(group=GROUP) if installed is None else installed:
        add(found, Found(_load(point), "installed", point.value))
    return found


def add(found: dict[str, Found], one: Found) -> None:
    """Put one more into ``found``. Raises PluginRefused if its name is taken."""
    name = one.plugin.name
    if name in found:
        raise PluginRefused(
            f"plugin {name!r} of {one.where!r}: the name is taken; "
            "a plugin must have a name of its own"
        )
    found[name] = one


def _load(point: EntryPoint) -> Plugin:
    where = f"plugin {point.name!r} of {point.value!r}"
    try:
        plugin = point.load()
    except Exception as error:  # a foreign module may raise anything
        raise PluginRefused(
            f"{where}: cannot be imported: {said(error)}; uninstall or update its package"
        ) from error
    return vet(plugin, where, "install a release of it for this version")
