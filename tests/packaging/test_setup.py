"""Set-up is safe to cut short, to repeat, and to run beside what a shell has set."""

import os
import re
import sys
import time
import tomllib
from pathlib import Path

import pytest

import toolchain
from children import ChildFailed, clean_environment, run
from stamp import Stamp, digest
from toolchain import Missing

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "packaging" / "locks").glob("*.txt"))


def test_a_stamp_remembers_what_was_done(tmp_path: Path) -> None:
    assert not Stamp(tmp_path).exists
    stamp = Stamp(tmp_path)
    stamp.begin("runtime")
    assert Stamp(tmp_path).cut_short == "runtime"
    stamp.finish("runtime", digest("lock"))
    again = Stamp(tmp_path)
    assert (again.exists, again.cut_short, again.done("runtime")) == (True, "", digest("lock"))
    assert again.done("dev") == ""


def test_a_step_begun_again_is_not_done_until_it_ends(tmp_path: Path) -> None:
    stamp = Stamp(tmp_path)
    stamp.finish("runtime", "one")
    stamp.begin("runtime")
    stamp.give_up()
    assert (Stamp(tmp_path).cut_short, Stamp(tmp_path).done("runtime")) == ("", "")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 0, "steps": {"a": "b"}}'])
def test_a_stamp_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "turnpike-setup.json").write_text(text, "utf-8")
    assert not Stamp(tmp_path).exists


def test_digests_keep_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")


def python(code: str, log: Path, lines: list[str]) -> None:
    environment = clean_environment(Path(sys.prefix))
    command = [sys.executable, "-c", code]
    run(command, log=log, env=environment, on_line=lines.append, on_tick=lambda: None)


def test_a_child_is_logged_and_watched(tmp_path: Path) -> None:
    lines: list[str] = []
    python("print('one'); print('Progress 1 of 2'); print('two')", tmp_path / "log", lines)
    assert lines == ["one", "Progress 1 of 2", "two"]
    logged = (tmp_path / "log").read_text("utf-8").splitlines()
    assert logged[-2:] == ["one", "two"]


def test_a_failing_child_hands_over_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed) as caught:
        python("for n in range(99): print(n)\nraise SystemExit(3)", tmp_path / "log", [])
    assert caught.value.status == 3
    assert caught.value.tail == [str(n) for n in range(69, 99)]


def test_an_interrupt_ends_the_child_and_its_children(tmp_path: Path) -> None:
    noted = tmp_path / "grandchild"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(noted)!r}).write_text(str(child.pid))\n"
        "print('ready'); time.sleep(60)"
    )

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            [sys.executable, "-c", code],
            log=tmp_path / "log",
            env=clean_environment(Path(sys.prefix)),
            on_line=stop,
            on_tick=lambda: None,
        )
    grandchild = int(noted.read_text("utf-8"))
    deadline = time.monotonic() + 10
    while _runs(grandchild) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(grandchild)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # One that ended stays in the table until its parent looks; that counts as ended.
    return not stat.exists() or stat.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"


def test_the_shell_cannot_change_what_is_installed_or_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("SOURCE_DATE_EPOCH", "CMAKE_ARGS", "CXXFLAGS", "PIP_USER", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    environment = clean_environment(tmp_path, TMPDIR="there")
    assert {"SOURCE_DATE_EPOCH", "CMAKE_ARGS", "CXXFLAGS", "PIP_USER", "PYTHONPATH"}.isdisjoint(
        environment
    )
    assert environment["TMPDIR"] == "there"
    assert environment["PATH"].startswith(str(tmp_path))


def test_a_missing_compiler_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Missing, match=r"No C\+\+ compiler found \(CXX=no-such-compiler") as caught:
        toolchain.compilers()
    told = str(caught.value)
    assert "apt install build-essential" in told
    assert "dnf install" in told
    assert "xcode-select --install" in told


def test_a_compiler_that_cannot_compile_is_found_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text(
        "#!/bin/sh\necho 'fatal error: stdint.h: no such file' >&2\nexit 1\n", "utf-8"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(Missing, match=r"cannot build a small program:\n.*stdint\.h"):
        toolchain.try_compilers()


def test_an_old_cmake_does_not_suffice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cmake = tmp_path / "cmake"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for version, suffices in (("3.20.9", False), ("3.21.0", True), ("4.1.2", True)):
        cmake.write_text(f"#!/bin/sh\necho cmake version {version}\n", "utf-8")
        cmake.chmod(0o755)
        assert toolchain.cmake_suffices() is suffices
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert toolchain.cmake_suffices() is False


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_locked_package_has_hashes(lock: Path) -> None:
    text = lock.read_text("utf-8").replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and line[0].isalnum()]
    assert pins
    assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


def test_the_locks_agree_with_each_other_and_with_the_project() -> None:
    def pins(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        text = (ROOT / "packaging" / "locks" / f"{name}.txt").read_text("utf-8")
        for package, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE):
            found.setdefault(package, set()).add(version)
        return found

    runtime, dev = pins("runtime"), pins("dev")
    assert {name: dev.get(name) for name in runtime} == runtime
    assert "llama-cpp-python" not in dev
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[\[<>=!~; ]", line)[0] for line in wanted}
    assert names - set(dev) == {"llama-cpp-python"}
