"""The binary where there is no Python, no network and nothing else; and what is in it."""

import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import build
from plugins.drop_in import digest_of
from tests.frozen.conftest import ROOT
from tests.local_runtime.calls import smollm_path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="so far tried on Linux only")

GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")
LOADER = Path("/lib64/ld-linux-x86-64.so.2")
UNDER_GPL = ("libreadline", "libgdbm", "libdb-", "libncurses++")


def run(program: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """With nothing in the environment but that."""
    return subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def serving(program: Path, config: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A server that runs, and what it says."""
    return subprocess.Popen(
        [program, "--config", config, "serve"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said_until(server: subprocess.Popen[str], words: str) -> str:
    """All that it says, up to the line with ``words``."""
    assert server.stdout is not None
    said = ""
    while words not in said:
        line = server.stdout.readline()
        assert line, said
        said += line
    return said


def bare_root(place: Path, program: Path) -> Path:
    """A root with the C library, /dev/null, an empty /tmp, and the program."""
    libraries = place / "lib" / "x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    for name in GLIBC:
        shutil.copy(Path("/lib/x86_64-linux-gnu") / name, libraries / name)
    (place / "lib64").mkdir()
    shutil.copy(LOADER, place / "lib64" / LOADER.name)
    (place / "dev").mkdir()
    os.mknod(place / "dev" / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (place / "tmp").mkdir()
    shutil.copy(program, place / "turnpike")
    return place


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="chroot needs root")
@pytest.mark.skipif(not LOADER.exists(), reason="written for glibc on x86-64")
def test_it_answers_in_an_empty_root_without_a_network(starter_file: Path, tmp_path: Path) -> None:
    root = bare_root(tmp_path / "root", starter_file)
    done = subprocess.run(
        ["unshare", "--net", sys.executable, ROOT / "tests" / "frozen" / "alone.py", root],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["tokens"] >= 1
    assert told["text"]
    assert told["status"] == 0, told["said"]
    assert "Traceback" not in told["said"]


def test_without_a_model_it_serves_and_says_what_to_add(folder: Path, tmp_path: Path) -> None:
    config, home = tmp_path / "c.toml", {"HOME": str(tmp_path)}
    config.write_text(f'[server]\nport = 0\ndata_dir = "{tmp_path}/data"\n')
    with serving(folder / "turnpike", config, home) as server:
        said = said_until(server, "Ctrl-C")
        asked = run(folder / "turnpike", "--config", str(config), "health", **home)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert "none: add [[providers]] or [[local.models]] to the configuration" in said
    assert asked.returncode == 0, asked.stderr


def test_both_forms_say_the_same_version(one_file: Path, folder: Path, tmp_path: Path) -> None:
    version = re.search(r"turnpike-([0-9.]+)", one_file.name)
    assert version
    for program in (one_file, folder / "turnpike"):
        done = run(program, "--version", TURNPIKE_UNPACK_DIR=str(tmp_path))
        assert done.stdout.strip().endswith(version[1].strip(".")), done.stderr


def test_it_knows_the_versions_of_what_is_inside(folder: Path) -> None:
    told = json.loads(run(folder / "turnpike", "version", "--json").stdout)
    assert (told["frozen"], told["edition"]) == (True, "core")
    assert set(told["distributions"]) >= {"litestar", "msgspec", "uvicorn", "httpx", "apscheduler"}
    assert [name for name, version in told.items() if version is None] == []


def test_a_restart_takes_the_program_that_lies_there_now(one_file: Path, tmp_path: Path) -> None:
    config = tmp_path / "turnpike.toml"
    model = '[[local.models]]\nid = "a/b"\nsource = "fake:"\nengine = "fake"\n'
    config.write_text(f'[server]\nport = 0\ndata_dir = "{tmp_path}/data"\n{model}')
    environment = {"TURNPIKE_UNPACK_DIR": str(tmp_path)}
    carried = shutil.copy(one_file, tmp_path / "turnpike-carried")
    with serving(Path(carried), config, environment) as server:
        said = said_until(server, "Ctrl-C")
        assert "turnpike-carried" in said  # the command for a new key
        done = run(Path(carried), "--config", str(config), "restart", **environment)
        assert done.returncode == 0, done.stderr
        assert f"process {server.pid}" in done.stdout
        health = run(Path(carried), "--config", str(config), "health", **environment)
        assert health.returncode == 0, health.stdout + health.stderr
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def test_a_server_that_is_killed_leaves_no_process_and_starts_again(
    one_file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "turnpike.toml"
    model = f'[[local.models]]\nid = "a/b"\nsource = "file:{smollm_path()}"\n'
    config.write_text(f'[server]\nport = 0\ndata_dir = "{tmp_path}/data"\n{model}')
    environment = {"TURNPIKE_UNPACK_DIR": str(tmp_path)}
    for _ in range(2):
        with serving(one_file, config, environment) as server:
            said_until(server, "is warm")
            assert len(_of(tmp_path)) == 2  # the server and its engine, and no parent of them
            server.send_signal(signal.SIGKILL)
        give_up_at = time.monotonic() + 10
        while _of(tmp_path) and time.monotonic() < give_up_at:
            time.sleep(0.05)
        assert _of(tmp_path) == []


def _of(place: Path) -> list[str]:
    """Processes whose program lies there."""
    found = []
    for link in Path("/proc").glob("[0-9]*/exe"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(str(place)):
            found.append(target)
    return found


def test_a_dropped_in_plugin_may_use_the_whole_standard_library(
    folder: Path, tmp_path: Path
) -> None:
    modules = "import " + ", ".join(
        ["curses.ascii", "decimal", "multiprocessing.shared_memory", "sqlite3", "unittest.mock",
         "wsgiref.simple_server", "xml.sax", "zoneinfo"]
    )  # fmt: skip
    from tests.plugins.acme import SOURCE

    source = SOURCE.replace("\nimport ", f"\n{modules}\nimport ", 1)
    assert modules in source
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "acme.py").write_text(source)
    (plugins / "acme.py").chmod(0o644)
    allow = f'"acme.py" = "{digest_of(source.encode())}"'
    config = tmp_path / "turnpike.toml"
    config.write_text(f'[plugins]\nfolder = "{plugins}"\n[plugins.allow]\n{allow}\n')
    where = ["--config", str(config), "--data-dir", str(tmp_path / "data")]
    done = run(folder / "turnpike", *where, "plugins", "list", "--json")
    assert done.returncode == 0, done.stderr
    assert "acme" in done.stdout
    assert "import" not in done.stderr


def test_no_library_wants_a_newer_glibc_than_is_promised(folder: Path) -> None:
    floor = tuple(map(int, build.GLIBC_MIN.split(".")))
    newest = (0, 0)
    for path in folder.rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF":
            for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", path.read_bytes()):
                newest = max(newest, (int(major), int(minor)))
    assert (2, 17) < newest <= floor


def test_all_variants_of_the_processors_code_are_there(folder: Path) -> None:
    names = {path.name for path in (folder / "_internal" / "llama_cpp" / "lib").iterdir()}
    assert {"libggml-cpu-haswell.so", "libggml-cpu-zen4.so", "libggml-cpu-x64.so"} <= names
    assert len([name for name in names if name.startswith("libggml-cpu-")]) >= 10


def test_everything_inside_is_listed_with_its_licence(folder: Path) -> None:
    inside = folder / "_internal"
    listed = json.loads((inside / "sbom.cdx.json").read_text())
    names = {each["name"].lower().replace("_", "-") for each in listed["components"]}
    licences = (inside / "LICENSES.txt").read_text().lower().replace("_", "-")
    installed = {path.name.split("-")[0].lower() for path in inside.glob("*.dist-info")}
    assert {each.replace("_", "-") for each in installed} - {"turnpike"} <= names
    assert {"litestar", "llama.cpp", "cpython", "sqlite", "openssl"} <= names
    assert [name for name in names if f"\n{name} " not in licences] == []
    libraries = [path.name for path in inside.glob("lib*.so*") if not path.is_symlink()]
    described = json.dumps(listed)
    assert [name for name in libraries if "libpython" not in name and name not in described] == []
    assert [name for name in libraries if name.startswith(UNDER_GPL)] == []


def test_no_path_of_the_machine_that_built_it_is_inside(folder: Path) -> None:
    # llama.cpp may have been compiled in another clone, of which this one took the kept wheel.
    inside = re.compile(re.escape(str(ROOT).encode()) + rb"|(?<![\w.])/[^\0\n]*/vendor/llama\.cpp/")
    found = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and inside.search(path.read_bytes())
    ]
    assert found == []


def test_the_sums_are_those_of_the_files(one_file: Path) -> None:
    lines = (one_file.parent / "SHA256SUMS").read_text().splitlines()
    assert one_file.name in "".join(lines)
    for line in lines:
        digest, name = line.split()
        with (one_file.parent / name).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest
