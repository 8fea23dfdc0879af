"""A system of its own: this machine's files under systemd as process 1, in a container without a
network, whose changes are gone with it.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BOOT_SECONDS_MAX = 60.0
_MADE_HERE = "/run/carried"  # where `carried` is inside: /tmp is the container's own


def why_not() -> str:
    """Why there can be none here; empty where there can."""
    if os.name == "nt" or os.geteuid() != 0:
        return "needs root"
    missing = [each for each in ("systemd-nspawn", "nsenter") if shutil.which(each) is None]
    if missing or not Path("/lib/systemd/systemd").exists():
        return f"needs systemd and {' '.join(missing) or 'its programs'}"
    return ""


class System:
    """A system that runs; ``carried`` is the folder inside that came along, read-only."""

    def __init__(self, init: int) -> None:
        self._init = init
        self.carried = _MADE_HERE

    def run(self, command: Sequence[str], timeout_s: float = 120) -> str:
        """What it prints. Raises CalledProcessError with that for a status other than 0."""
        done = self.try_to(command, timeout_s)
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def try_to(
        self, command: Sequence[str], timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """The same, whatever its status."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["nsenter", "--target", str(self._init), "--all", "--root", "--wd"]
        return subprocess.run(
            [*inside, "env", "-i", f"PATH={path}", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def shell(self, script: str, timeout_s: float = 120) -> str:
        """The same of a script, which ends at its first failure."""
        return self.run(["sh", "-euc", script], timeout_s)

    def until(self, script: str, seconds_max: float = 30) -> None:
        """Wait until the script succeeds."""
        give_up = time.monotonic() + seconds_max
        while (done := self.try_to(["sh", "-euc", script])).returncode != 0:
            assert time.monotonic() < give_up, f"{script}: {done.stdout}"
            time.sleep(0.2)


@contextmanager
def booted(work: Path, carried: Path) -> Iterator[System]:
    """One with ``carried`` inside; ``work`` is an empty folder of ours."""
    subprocess.run(["mount", "-t", "tmpfs", "none", work], check=True)
    try:
        for name in ("upper", "work", "root"):
            (work / name).mkdir()
        layers = f"lowerdir=/,upperdir={work}/upper,workdir={work}/work"
        root = work / "root"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, root], check=True)
        try:
            with _boot(root, carried) as system:
                yield system
        finally:
            subprocess.run(["umount", root], check=True)
    finally:
        subprocess.run(["umount", work], check=True)


@contextmanager
def _boot(root: Path, carried: Path) -> Iterator[System]:
    command = [
        *("systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit"),
        *(f"--machine=turnpike-{os.getpid()}", "--private-network", "--console=pipe"),
        *(f"--bind-ro={carried}:{_MADE_HERE}", "--boot", "systemd.unit=basic.target"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as container:
        try:
            yield _running(container)
        finally:
            container.terminate()  # which it takes as an orderly shutdown
            try:
                container.wait(30)
            except subprocess.TimeoutExpired:
                container.kill()


def _running(container: "subprocess.Popen[bytes]") -> System:
    """Waits for its process 1, which is not the container's first child, to have started all."""
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    give_up = time.monotonic() + BOOT_SECONDS_MAX
    while True:
        for child in children.read_text().split():
            system = System(int(child))
            if system.try_to(["systemctl", "is-system-running", "--quiet"]).returncode == 0:
                return system
        assert container.poll() is None, f"systemd-nspawn ended with {container.returncode}"
        assert time.monotonic() < give_up
        time.sleep(0.2)
