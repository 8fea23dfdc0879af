"""How much memory models may have on this machine: what is available, within the limits that
control groups set (Linux kernel documentation: ``cgroup-v2.rst`` and ``cgroup-v1/memory.rst``).
"""

import os
import sys
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


def takeable_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process could still take before anybody is ended for it, swap included; None
    where the system does not say.
    """
    machine = _of_machine(root)
    if machine is None:
        return None
    known = [each for each in _of_groups(root) if each is not None]
    return max(0, min([machine + (_of_machine(root, "SwapFree:") or 0), *known]))


def machine_bytes(root: Path = Path("/")) -> int:
    """What this machine has, or the control groups that this process is in; used or not."""
    limits = _of_groups(root, used=False)
    known = [_physical_bytes(), *(each for each in limits if each is not None)]
    return min(known)


def budget_bytes(available: int | None) -> int:
    """What models may have of ``available``: all but a tenth, which stays with the system, and at
    least half a GiB and at most four. Where nothing is known: half of the machine's memory.
    """
    if available is None:
        return _physical_bytes() // 2
    reserve = int(min(RESERVE_BYTES_MAX, max(RESERVE_BYTES_MIN, available * RESERVE_SHARE)))
    return max(0, available - reserve)


def memory_now() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say.

    Call it before and after a load: the difference is what the load took, file-backed pages of the
    weights included.
    """
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # its highest; bytes there
    try:
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return resident * os.sysconf("SC_PAGE_SIZE")


def _physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_machine(root: Path, name: str = "MemAvailable:") -> int | None:
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None


def _of_groups(root: Path, *, used: bool = True) -> list[int | None]:
    """What is left in each control group that this process is in, from its own to the topmost;
    or, without what is ``used``, what each may have.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left: list[int | None] = []
    walk = _walk if used else _limits
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            left += walk(root / "sys/fs/cgroup", path, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            left += walk(root / "sys/fs/cgroup/memory", path, names)
    return left


def _walk(mount: Path, path: str, names: tuple[str, str, str]) -> list[int | None]:
    return [_left_in(each, *names) for each in _groups(mount, path)]


def _limits(mount: Path, path: str, names: tuple[str, str, str]) -> list[int | None]:
    found: list[int | None] = []
    for group in _groups(mount, path):
        try:
            found.append(int((group / names[0]).read_text()))
        except (OSError, ValueError):
            found.append(None)
    return found


def _groups(mount: Path, path: str) -> list[Path]:
    """``path`` is as the process sees it; in a container its own group may be the mount itself."""
    group = mount / path.strip("/")
    return [each for each in (group, *group.parents) if each.is_relative_to(mount)]


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
