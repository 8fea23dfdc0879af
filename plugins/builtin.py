"""The shipped plugins, imported by name: a frozen binary misses what is imported by string."""

from plugins.contract import Plugin
from plugins.echo.plugin import PLUGIN as ECHO
from plugins.openai_compatible.plugin import PLUGIN as OPENAI_COMPATIBLE

BUILTIN: tuple[Plugin, ...] = (OPENAI_COMPATIBLE, ECHO)
