"""A graphics card's backend: what building it takes is looked for before anything is fetched."""

import os
import shutil
from pathlib import Path

import pytest

from llama_accelerator import ACCELERATORS, backend, require
from llama_wheel import cache_folder
from local_runtime.engines.llama.libraries import accelerators
from progress import Display
from toolchain import Missing

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(ACCELERATORS))
def test_the_runtime_knows_the_library_by_its_name(tmp_path: Path, name: str) -> None:
    library = tmp_path / ACCELERATORS[name].library
    library.touch()
    assert accelerators(tmp_path) == [library]


@pytest.mark.parametrize("name", sorted(ACCELERATORS))
def test_a_missing_tool_is_named_with_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing) as told:
        require(ACCELERATORS[name])
    assert f"there is no {ACCELERATORS[name].tools[0]}" in str(told.value)
    assert ACCELERATORS[name].install in str(told.value)


@pytest.mark.parametrize("name", sorted(ACCELERATORS))
def test_a_tool_without_its_headers_is_found_out(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tool in ACCELERATORS[name].tools:
        (tmp_path / tool).symlink_to(_compiler_without_headers(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CXX", str(_compiler_without_headers(tmp_path)))
    with pytest.raises(Missing, match=r"says \[.*error: no such header"):
        require(ACCELERATORS[name])


def _compiler_without_headers(folder: Path) -> Path:
    program = folder / "compiler"
    program.write_text("#!/bin/sh\necho 'trial:1: error: no such header' >&2\nexit 1\n")
    program.chmod(0o755)
    return program


def test_nothing_is_left_behind_where_it_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cc", "c++", "gcc", "g++", "as", "ld"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(Missing):
        backend(ROOT, tmp_path / "venv", "vulkan", Display())
    assert not cache_folder().exists()
