"""What a person sees while set-up works."""

import io
from pathlib import Path

import pytest

from pip_progress import PipProgress, requirements
from progress import Display, duration, time_left


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.9, "0:07"), (322, "5:22"), (3603, "1:00:03")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_time_left_is_told_once_something_is_known() -> None:
    assert time_left(1.0, 0.5, 0.5) == ""
    assert time_left(100.0, 0.01, 0.99) == ""
    assert time_left(60.0, 0.999, 0.001) == ""
    assert time_left(60.0, 0.25, 0.75) == ", about 3:00 left"


def test_piped_it_prints_a_line_at_start_each_tenth_and_end() -> None:
    clock, out = Clock(), io.StringIO()
    display = Display(out, live=False, clock=clock)
    display.plan(2)
    display.begin("Building")
    for done in range(101):
        clock.now += 2
        display.update(done / 100, f"{done} of 100 files")
    display.end("kept")
    lines = out.getvalue().splitlines()
    assert lines[0] == "[1/2] Building ..."
    assert lines[-1] == "[1/2] Building: done in 3:22, kept"
    assert "\r" not in out.getvalue()
    assert lines[5] == "       50%  1:42, about 1:40 left  50 of 100 files"
    assert len(lines) == 12


def test_piped_it_says_something_now_and_then_while_nothing_can_be_counted() -> None:
    clock, out = Clock(), io.StringIO()
    display = Display(out, live=False, clock=clock)
    display.begin("Waiting")
    for _ in range(70):
        clock.now += 1
        display.tick()
    assert out.getvalue().splitlines()[1:] == ["      0:30", "      1:00"]


def test_on_a_terminal_it_redraws_one_line_within_its_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    clock, out = Clock(), Terminal()
    display = Display(out, live=True, clock=clock)
    display.plan(1)
    display.begin("Building")
    clock.now += 1
    display.update(0.5, "a detail that is far too long for so narrow a terminal")
    display.end()
    drawn = out.getvalue().split("\r")
    assert all(len(line.replace("\x1b[K", "").rstrip("\n")) < 60 for line in drawn)
    assert " 50%  0:01" in drawn[2]
    assert "━━━━━━━━━━━━────────────" in drawn[2]
    assert drawn[-1] == "\x1b[K[1/1] Building ✓ 0:01\n"


def test_a_terminal_without_utf8_gets_ascii() -> None:
    out = io.StringIO()
    display = Display(out, live=True)
    display.begin("Building")
    display.update(0.5)
    display.end()
    assert out.getvalue().isascii()


PIP = """\
Ignoring colorama: markers 'sys_platform == "win32"' don't match your environment
Collecting alpha==1.0 (from -r lock.txt (line 3))
  Downloading alpha-1.0-py3-none-any.whl.metadata (2.1 kB)
Processing /somewhere/beta-2.0-py3-none-any.whl (from -r lock.txt (line 7))
Downloading alpha-1.0-py3-none-any.whl (134 kB)
Progress 0 of 134000
Progress 67000 of 134000
Progress 134000 of 134000
Installing collected packages: beta, alpha
Successfully installed alpha-1.0 beta-2.0
"""


def test_pip_is_followed_from_look_up_to_install(tmp_path: Path) -> None:
    (tmp_path / "pip-1.dist-info").mkdir()
    pip = PipProgress(3, tmp_path)
    seen = []
    for line in PIP.splitlines():
        pip.line(line)
        seen.append(pip.fraction())
    (tmp_path / "beta-2.0.dist-info").mkdir()
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert pip.fraction() == pytest.approx(0.85)
    assert pip.detail == "installed 1 of 2"
    (tmp_path / "alpha-1.0.dist-info").mkdir()
    assert pip.fraction() == pytest.approx(1.0)


def test_a_lock_tells_how_many_packages_it_names(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("# by hand\na==1 \\\n    --hash=sha256:00\n    # via b\nb==2\n", "utf-8")
    assert requirements(lock) == 2
