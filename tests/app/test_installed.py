"""The versions of everything, found out without loading it."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from app import installed
from app.installed import EDITION_FILE, distributions, edition_file, library_versions, versions
from app.version import VERSION
from tests.app.cli.terminal import Inside


def test_versions_of_everything() -> None:
    found = versions()
    assert (found.turnpike, found.edition, found.frozen) == (VERSION, "source", False)
    assert found.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found.litestar == version("litestar")
    assert found.msgspec == version("msgspec")
    assert found.llama_cpp_python == version("llama-cpp-python")
    assert found.sqlite.startswith("3.")


def test_all_that_is_stood_on_and_nothing_else() -> None:
    found = distributions()
    assert {"msgspec", "certifi", "httpcore", "cffi"} <= found.keys()  # and what those need
    assert {"pytest", "ruff", "turnpike"}.isdisjoint(found)
    assert found["uvicorn"] == version("uvicorn")


def test_a_frozen_program_tells_its_edition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    assert versions().edition == "frozen"  # the file may be absent
    said: dict[str, Any] = {"edition": "torch", "llama_cpp": "b1234", "made": "by hand"}
    (tmp_path / EDITION_FILE).write_text(json.dumps(said))
    found = versions()
    assert (found.edition, found.frozen, found.llama_cpp) == ("torch", True, "b1234")
    assert found.build["made"] == "by hand"
    monkeypatch.setattr(installed, "distributions", dict)  # a bundle without packages' own files
    said["distributions"] = {"Litestar": "9.9", "llama_cpp_python": "0.1"}
    (tmp_path / EDITION_FILE).write_text(json.dumps(said))
    found = versions()
    assert (found.litestar, found.llama_cpp_python, found.msgspec) == ("9.9", "0.1", None)
    for damaged in ("[", "[1]"):
        (tmp_path / EDITION_FILE).write_text(damaged)
        assert edition_file() == {}


def test_the_names_of_libraries_tell_their_version(tmp_path: Path) -> None:
    assert library_versions(tmp_path) is None
    for name in (
        "libllama.so",
        "libllama.so.0.5.1",
        "libggml.0.25.3.dylib",
        "libggml-cpu.so.0.9.9",
    ):
        (tmp_path / name).touch()
    assert library_versions(tmp_path) == "llama 0.5.1, ggml 0.25.3"


def test_the_command(tmp_path: Path) -> None:
    here = Inside(tmp_path)
    assert here.out("version") == here.out("--version") == f"turnpike {VERSION}\n"
    found = here.json("version")
    assert found["turnpike"] == VERSION
    assert found["distributions"] == distributions()


def test_nothing_is_loaded_for_it() -> None:
    code = (
        "import sys; from app.cli.main import run; run(['version', '--json']);"
        "print(sorted({'llama_cpp', 'litestar', 'uvicorn', 'huggingface_hub', 'numpy'}"
        " & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert installed.is_frozen() is False
