"""``make torch`` and the editions: what is installed, what is told, what is listed as inside."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pip
import pytest

import bill
from build import EDITIONS
from installer import Installer, _torch_pin
from progress import Display
from toolchain import Missing

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_projects_own() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extra = tomllib.load(file)["project"]["optional-dependencies"]["torch"]
    assert _torch_pin(ROOT) in extra
    assert "torch" not in bill.locked(ROOT, "torch", "runtime", "dev"), (
        "each index has other hashes"
    )


def test_the_lock_has_all_that_torch_asks_for() -> None:
    try:
        needs = distribution("torch").requires or []
    except PackageNotFoundError:
        pytest.skip("`make torch` installs it")
    names = {
        bill.plain(re.split(r"[^A-Za-z0-9._-]", each)[0]) for each in needs if "extra" not in each
    }
    assert names - {"triton"} <= bill.locked(ROOT, "torch")


def broken_torch(folder: Path, version: str) -> Path:
    """A wheel of torch as it is where its libraries are missing."""
    wheel = folder / f"torch-{version}-py3-none-any.whl"
    about = f"torch-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("torch/__init__.py", "raise ImportError('libcudart.so.12: not there')")
        head = "Metadata-Version: 2.1\nName: torch\nVersion: " + version
        packed.writestr(f"{about}/METADATA", head)
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        packed.writestr(f"{about}/RECORD", "")
    return wheel


def test_a_torch_that_does_not_run_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = _torch_pin(ROOT)
    broken_torch(tmp_path, pin.partition("==")[2])
    make = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")]
    subprocess.run(make, check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "pip.pth").write_text(str(Path(pip.__file__).parents[1]))  # ours, not Python's own
    monkeypatch.setenv("PIP_IGNORE_INSTALLED", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    installer = Installer(ROOT, Display(), tmp_path / "venv")
    with pytest.raises(Missing) as told:
        installer._install_torch(pin)
    for words in (pin, "libcudart.so.12", "PIP_FIND_LINKS=", "NVIDIA"):
        assert words in str(told.value)


def test_an_edition_that_there_is_not_is_refused() -> None:
    command = [sys.executable, "packaging/bootstrap.py", "binary", "--editions", "core,tourch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'tourch'" in done.stdout + done.stderr
    assert all(each in done.stdout + done.stderr for each in EDITIONS)


def test_what_only_compiles_is_not_in_the_list_of_parts() -> None:
    inside = bill.distributions(ROOT, with_torch=True)
    assert {"torch", "safetensors", "tokenizers", "litestar"} <= inside
    assert not bill.NOT_OF_TORCH & inside
    assert "torch" not in bill.distributions(ROOT)


def test_where_a_wheel_lay_is_not_told() -> None:
    site = {"type": "website", "url": "https://example.org"}
    part = {"externalReferences": [{"type": "distribution", "url": "file:///home/x.whl"}, site]}
    bill._forget_this_machine(part)
    assert part["externalReferences"] == [site]
