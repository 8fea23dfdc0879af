"""A small disk of its own: a tmpfs in a mount namespace that a child process holds.

It is gone when the child ends, however that comes about.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def _try() -> bool:
    if sys.platform != "linux":
        return False
    try:
        done = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


CAN_MOUNT = _try()
"""Whether this machine and user may do that."""


@dataclass(frozen=True)
class SmallDisk:
    """``place`` is where those who are ``inside`` find it, ``path`` where everybody does."""

    holder: int
    place: Path

    @property
    def path(self) -> Path:
        """For looking at it from outside; SQLite cannot use it, since it follows links itself."""
        return Path(f"/proc/{self.holder}/root{self.place}")

    def inside(self, *command: str) -> list[str]:
        """A command that runs where the disk is mounted; its process id is the command's own."""
        here = str(Path.cwd())
        return ["nsenter", "-t", str(self.holder), "-m", f"--wd={here}", *command]

    def fill(self, *, leave: int) -> None:
        """Write a file, ``filling``, that leaves so many bytes free."""
        with (self.path / "filling").open("wb", buffering=0) as file:
            found = os.statvfs(self.path)
            left = found.f_bavail * found.f_frsize - leave
            while left > 0:
                try:
                    left -= file.write(bytes(min(left, 1 << 20)))
                except OSError:
                    return

    def empty(self) -> None:
        """Remove that file."""
        (self.path / "filling").unlink()

    def read_only(self) -> None:
        """From now on nothing can be written to it any more."""
        command = self.inside("mount", "-o", "remount,ro", str(self.place))
        subprocess.run(command, check=True, timeout=10, capture_output=True)


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[SmallDisk]:
    """A disk of ``size`` bytes."""
    place.mkdir()
    mount = f'mount -t tmpfs -o size={size},mode=0700 none "$0" && echo ready && exec sleep 600'
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", mount, str(place)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            if holder.stdout is None or holder.stdout.readline() != "ready\n":
                raise RuntimeError("the disk could not be mounted")
            yield SmallDisk(holder.pid, place)
        finally:
            holder.kill()
