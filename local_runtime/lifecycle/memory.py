"""How much memory models may have on this machine: what is available, within the limits that
control groups set (Linux kernel documentation: ``cgroup-v2.rst`` and ``cgroup-v1/memory.rst``).
"""

import os
from pathlib import Path

RESERVE_SHARE = 0.1
RESERVE_BYTES_MIN = 512 * 1024 * 1024
RESERVE_BYTES_MAX = 4 * 1024 * 1024 * 1024


def available_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process could still take without anybody else's being swapped out; None
    where the system does not say. Memory that only caches files counts as available.
    """
    found = [_of_machine(root), *_of_groups(root)]
    known = [each for each in found if each is not None]
    return max(0, min(known)) if known else None


def budget_bytes(available: int | None) -> int:
    """What models may have of ``available``: all but a tenth, which stays with the system, and at
    least half a GiB and at most four. Where nothing is known: half of the machine's memory.
    """
    if available is None:
        return _physical_bytes() // 2
    reserve = int(min(RESERVE_BYTES_MAX, max(RESERVE_BYTES_MIN, available * RESERVE_SHARE)))
    return max(0, available - reserve)


def _physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_machine(root: Path) -> int | None:
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _of_groups(root: Path) -> list[int | None]:
    """What is left in each control group that this process is in, from its own to the topmost."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left: list[int | None] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            left += _walk(root / "sys/fs/cgroup", path, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            left += _walk(root / "sys/fs/cgroup/memory", path, names)
    return left


def _walk(mount: Path, path: str, names: tuple[str, str, str]) -> list[int | None]:
    """``path`` is as the process sees it; in a container its own group may be the mount itself."""
    group = mount / path.strip("/")
    groups = [each for each in (group, *group.parents) if each.is_relative_to(mount)]
    return [_left_in(each, *names) for each in groups]


def _left_in(group: Path, limit: str, usage: str, cached: str) -> int | None:
    try:
        most = int((group / limit).read_text())
        used = int((group / usage).read_text())
        stat = (group / "memory.stat").read_text()
    except (OSError, ValueError):  # no limit here ("max"), or none of this kind
        return None
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name == cached:
            used -= int(value)
    return most - used
