"""Plugins are found by name; those that cannot be used are refused with the reason."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

import plugins.builtin
from plugins.builtin import BUILTIN
from plugins.contract import CONTRACT_VERSION
from plugins.discover import GROUP, discover
from plugins.echo.plugin import PLUGIN as ECHO
from plugins.vetting import PluginRefused

ROOT = Path(plugins.builtin.__file__).parent
ACME = msgspec.structs.replace(ECHO, name="acme")
FUTURE = msgspec.structs.replace(ECHO, name="future", contract_version=CONTRACT_VERSION + 1)
UNNAMED = msgspec.structs.replace(ECHO, name="two words")
FOREIGN = SimpleNamespace(name="foreign", contract_version=0)
NO_PLUGIN = object()


def point(name: str, value: str | None = None) -> EntryPoint:
    return EntryPoint(name=name, value=value or f"{__name__}:{name}", group=GROUP)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points import by name, and this module may be known under none."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, _this_module()))


def _this_module() -> SimpleNamespace:
    return SimpleNamespace(**globals())


def test_shipped_plugins_are_found_by_name() -> None:
    assert set(discover([])) == {plugin.name for plugin in BUILTIN}
    assert {"openai_compatible", "echo", "groq", "azure_openai"} <= set(discover([]))
    assert len(discover([])) == len(BUILTIN)
    assert all(plugin.contract_version == CONTRACT_VERSION for plugin in BUILTIN)


def test_every_folder_with_a_plugin_is_shipped() -> None:
    """Named in the file that the binary is built from, in order."""
    rooms = sorted(path.parent.name for path in ROOT.glob("*/plugin.py"))
    text = (ROOT / "builtin.py").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"^from plugins\.(\w+)\.plugin import", text, re.M))) == rooms
    listed = re.findall(r"^    \*?([A-Z_]+),$", text, re.M)
    assert [n.lower() for n in listed if n != "PRESET_PLUGINS"] == rooms


def test_plugins_say_who_they_are() -> None:
    assert [plugin.name for plugin in BUILTIN if not plugin.title] == []
    assert not {plugin.name: plugin for plugin in BUILTIN}["echo"].needs_key


def test_environment_is_read_without_arguments() -> None:
    assert set(discover()) >= {"openai_compatible", "echo"}


def test_installed_plugin_is_added() -> None:
    assert discover([point("ACME")])["acme"] is ACME


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (point("FUTURE"), f"contract version {CONTRACT_VERSION + 1}.*install a release"),
        (point("FOREIGN"), "contract version 0"),
        (point("NO_PLUGIN"), "expected a plugins.contract.Plugin, found object"),
        (point("ECHO"), "name is taken"),
        (point("UNNAMED"), "no name for a plugin"),
        (point("gone", "no_such_module_here:PLUGIN"), "cannot be imported: ModuleNotFoundError"),
        (point("MISSING"), "cannot be imported: AttributeError"),
    ],
    ids=lambda value: value.name if isinstance(value, EntryPoint) else "",
)
def test_plugin_that_cannot_be_used_is_refused(entry: EntryPoint, reason: str) -> None:
    with pytest.raises(PluginRefused, match=reason):
        discover([entry])


def test_importing_the_plugins_starts_nothing() -> None:
    """No thread, no event loop, no socket: an import has no side effects."""
    code = (
        "import threading, sys, plugins.discover, plugins.conformance; "
        "assert threading.active_count() == 1; "
        "assert not any(name.split('.')[0] in ('app', 'local_runtime') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
