"""What else ran while something was measured: other programs' time and time stolen by the host."""

import os
from dataclasses import dataclass
from pathlib import Path

OTHERS_PERCENT_MAX = 5.0
"""Of the machine's processor time; beyond it a round says more about the neighbours."""


@dataclass(frozen=True, slots=True)
class Times:
    """Processor time since boot, in ticks: of everybody, of this process's tree, and stolen."""

    total: int
    busy: int
    stolen: int
    ours: int


def times() -> Times | None:
    """Now; None where there is no /proc to tell."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:9]
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, first)
    except (OSError, ValueError):
        return None
    busy = user + nice + system + irq + softirq
    return Times(busy + idle + iowait + steal, busy, steal, _tree_ticks())


def others_percent(before: Times | None, after: Times | None) -> float | None:
    """Percent of the machine between the two that neither idled nor was ours; None: unknown."""
    if before is None or after is None or after.total <= before.total:
        return None
    spent = after.busy - before.busy - (after.ours - before.ours) + after.stolen - before.stolen
    return round(max(0.0, 100.0 * spent / (after.total - before.total)), 1)


def _tree_ticks() -> int:
    """Ticks of this process, of all that live below it, and of those below that have ended."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        fields = stat.rpartition(")")[2].split()  # from field 3 of proc(5) on: the state
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        ticks[pid] = sum(map(int, fields[11:15]))  # its own, and its ended children's
    return sum(ticks[pid] for pid in ticks if _descends(pid, os.getpid(), parents))


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid > 1 and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor
