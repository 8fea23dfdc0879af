"""Only bytes that were approved are run, and whatever is wrong with a file is told."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.contract import CONTRACT_VERSION
from plugins.discover import discover
from plugins.drop_in import (
    FILE_BYTES_MAX,
    FolderFile,
    digest_of,
    load,
    load_file,
    run_file,
    survey,
)
from plugins.vetting import PluginRefused

SOURCE = """
import msgspec
from dataclasses import dataclass
from plugins.contract import CONTRACT_VERSION, Plugin, ProviderSettings
from plugins.echo.plugin import EchoAdapter

class Settings(ProviderSettings, frozen=True, kw_only=True):
    word_delay_ms: "int" = 0

PLUGIN = Plugin(
    name="acme", contract_version=CONTRACT_VERSION, settings=Settings, build=EchoAdapter
)
"""
posix = pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Forget what a test has run."""
    yield
    for name in [name for name in sys.modules if name.startswith("turnpike_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "plugins"
    made.mkdir(mode=0o755)
    made.chmod(0o755)
    return made


def put(folder: Path, name: str = "acme.py", source: str | bytes = SOURCE) -> dict[str, str]:
    """Write a file; the line that allows it."""
    data = source.encode() if isinstance(source, str) else source
    (folder / name).write_bytes(data)
    (folder / name).chmod(0o644)
    return {name: digest_of(data)}


def refused(folder: Path, allow: dict[str, str]) -> str:
    before = dict(sys.modules)
    with pytest.raises(PluginRefused) as error:
        load(folder, allow)
    assert {n for n in sys.modules if n.startswith("turnpike_plugin")} <= set(before)
    return str(error.value)


def test_an_allowed_file_is_a_plugin(folder: Path) -> None:
    allow = put(folder)
    plugin = load(folder, allow)["acme.py"]
    assert plugin.name == "acme"
    assert plugin.settings.__module__ == "turnpike_plugin_acme"
    # Types that are named by text are looked up in the module that was run.
    settings = msgspec.convert({"word_delay_ms": 3}, plugin.settings)
    assert msgspec.to_builtins(settings)["word_delay_ms"] == 3
    assert discover([], folder=folder, allow=allow)["acme"] is plugin


def test_nothing_is_run_that_is_not_listed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marker = tmp_path / "ran"
    put(folder, "evil.py", f"open({str(marker)!r}, 'w')")
    put(folder, "bad\nname.py", "1/0")
    put(folder, "notes.txt", "no plugin")
    allow = put(folder)
    with caplog.at_level(logging.WARNING, "turnpike.plugins"):
        assert list(load(folder, allow)) == ["acme.py"]
    assert not marker.exists()
    (record,) = caplog.records
    assert "evil.py" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert "notes.txt" not in record.getMessage()
    assert "acme.py" not in record.getMessage()


def test_a_changed_file_is_refused_with_its_new_hash(folder: Path) -> None:
    allow = put(folder)
    load(folder, allow)
    (new,) = put(folder, source=SOURCE + "raise SystemExit('ran')\n").values()
    told = refused(folder, allow)
    assert new in told
    assert allow["acme.py"] in told
    assert "changed since it was allowed" in told


def test_an_unchanged_file_is_run_once_and_a_new_version_of_it_anew(folder: Path) -> None:
    allow = put(folder)
    first = load(folder, allow)["acme.py"]
    assert load(folder, allow)["acme.py"] is first
    second = load(folder, put(folder, source=SOURCE + "# more\n"))["acme.py"]
    assert second is not first
    assert second.settings is not first.settings


def test_a_version_that_fails_leaves_the_one_before(folder: Path) -> None:
    first = load(folder, put(folder))["acme.py"]
    running = sys.modules["turnpike_plugin_acme"]
    assert "ZeroDivisionError" in refused(folder, put(folder, source="1/0"))
    assert sys.modules["turnpike_plugin_acme"] is running
    assert load(folder, put(folder))["acme.py"] is first


BROKEN = {
    "x = (": "line 1: SyntaxError",
    "x = 1\nraise KeyError('why')": "line 2: KeyError: 'why'; mend the file",
    "def f():\n  return 1 / 0\n\nf()": "line 2: ZeroDivisionError",
    "raise SystemExit(3)": "SystemExit: 3",
    "import no_such_module_here": "ModuleNotFoundError",
    "x = 1\0": "mend the file",
    "x = 1": "has no PLUGIN; end it with",
    "PLUGIN = 3": "expected a plugins.contract.Plugin, found int",
    SOURCE.replace("CONTRACT_VERSION, s", "CONTRACT_VERSION + 1, s"): (
        f"contract version {CONTRACT_VERSION + 1}, this Turnpike has version {CONTRACT_VERSION}"
    ),
    SOURCE.replace('"acme"', '"Not A Name"'): "is no name for a plugin",
    SOURCE.replace('"acme"', "None"): "is no name for a plugin",
    SOURCE.replace("settings=Settings", "settings=dict"): "not a class of ProviderSettings",
    SOURCE.replace("build=EchoAdapter", "build=3"): "build cannot be called",
}


@pytest.mark.parametrize("source", BROKEN, ids=range(len(BROKEN)))
def test_what_is_wrong_in_a_file_is_told(folder: Path, source: str) -> None:
    told = refused(folder, put(folder, source=source))
    assert str(folder / "acme.py") in told
    assert BROKEN[source] in told


def test_a_name_that_is_taken_is_refused(folder: Path) -> None:
    taken = put(folder, source=SOURCE.replace('"acme"', '"echo"'))
    with pytest.raises(PluginRefused, match=r"plugin 'echo' of .*acme.py.*name is taken"):
        discover([], folder=folder, allow=taken)
    both = put(folder) | put(folder, "acme_too.py")
    with pytest.raises(PluginRefused, match=r"plugin 'acme' of .*acme_too.py.*name is taken"):
        discover([], folder=folder, allow=both)


def test_an_allowed_file_has_to_be_there(folder: Path) -> None:
    assert "not there" in refused(folder, {"gone.py": digest_of(b"")})
    assert "not there" in refused(folder / "gone", {})
    (folder / "file").touch()
    assert "not a folder" in refused(folder / "file", {})


def test_hashes_without_a_folder_are_a_mistake() -> None:
    with pytest.raises(PluginRefused, match=r"plugins.folder is not set"):
        discover([], allow={"acme.py": digest_of(b"")})


@posix
def test_only_files_that_nobody_else_can_change(folder: Path, tmp_path: Path) -> None:
    allow = put(folder)
    for mode in (0o664, 0o646):
        (folder / "acme.py").chmod(mode)
        assert "other accounts can write to it; chmod go-w" in refused(folder, allow)
    (folder / "acme.py").chmod(0o600)
    for mode in (0o775, 0o757, 0o1777):
        folder.chmod(mode)
        told = refused(folder, allow)
        assert "plugins.folder" in told
        assert "other accounts can write to it" in told
    folder.chmod(0o700)
    assert load(folder, allow)
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    assert load(linked, allow)


@posix
def test_links_pipes_and_folders_are_no_files(folder: Path, tmp_path: Path) -> None:
    allow = put(tmp_path, "elsewhere.py")
    (folder / "acme.py").symlink_to(tmp_path / "elsewhere.py")
    assert "a link" in refused(folder, {"acme.py": allow["elsewhere.py"]})
    os.mkfifo(folder / "pipe.py")
    assert "not a regular file" in refused(folder, {"pipe.py": digest_of(b"")})
    (folder / "dir.py").mkdir()
    assert refused(folder, {"dir.py": digest_of(b"")})


def test_a_file_is_bounded(folder: Path) -> None:
    filler = "#" * (FILE_BYTES_MAX - len(SOURCE.encode()))
    assert load(folder, put(folder, source=SOURCE + filler))
    assert f"larger than {FILE_BYTES_MAX}" in refused(
        folder, put(folder, source=SOURCE + filler + "#")
    )


@given(st.binary(max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_any_other_byte_is_another_hash(data: bytes, at: int, flip: int) -> None:
    changed = bytearray(data or b"x")
    changed[at % len(changed)] ^= flip
    assert digest_of(bytes(changed)) != digest_of(data or b"x")


def test_a_survey_runs_nothing(folder: Path) -> None:
    allow = put(folder) | put(folder, "old.py") | {"gone.py": digest_of(b"")}
    (new,) = put(folder, "new.py", "1/0").values()
    (changed,) = put(folder, "old.py", "2/0").values()
    before = set(sys.modules)
    found = survey(folder, allow)
    assert found[0] == FolderFile("acme.py", allow["acme.py"], True, "")
    assert (found[1].name, found[1].digest, found[1].allowed) == ("gone.py", "", True)
    assert "not there" in found[1].problem
    assert found[2] == FolderFile("new.py", new, False, "")
    assert found[3] == FolderFile("old.py", changed, False, "changed since it was allowed")
    assert not [name for name in set(sys.modules) - before if name.startswith("turnpike_plugin")]


def test_a_file_under_work_runs_wherever_it_lies(tmp_path: Path) -> None:
    put(tmp_path, "my-work.py")
    (tmp_path / "my-work.py").chmod(0o666)
    assert run_file(tmp_path / "my-work.py").name == "acme"
    with pytest.raises(PluginRefused, match="not there"):
        run_file(tmp_path / "gone.py")


def test_tracebacks_name_the_file(folder: Path) -> None:
    source = SOURCE + "\ndef broken():\n    raise ValueError('here')\n"
    load_file(folder, "acme.py", put(folder, source=source)["acme.py"])
    with pytest.raises(ValueError, match="here") as error:
        sys.modules["turnpike_plugin_acme"].broken()
    assert str(error.traceback[-1].path) == str(folder / "acme.py")
