"""What is measured of the machine's memory: on this one, and on made-up ones."""

import sys
from pathlib import Path

import pytest

from local_runtime.lifecycle.load_times import LoadTimes
from local_runtime.lifecycle.memory import (
    available_bytes,
    budget_bytes,
    machine_bytes,
    takeable_bytes,
)
from plugins.contract import AdapterError, FailureKind
from tests.local_runtime.sharing import ask, model, sharing

GIB = 1024**3
MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1048576 kB\nMemAvailable: 8388608 kB\n"


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(MEMINFO)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine() -> None:
    found = available_bytes()
    assert found is not None and 0 < found < 1 << 50


def test_without_groups(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, "", {})) == 8 * GIB


def test_a_limit_of_an_outer_group_counts(tmp_path: Path) -> None:
    files = {
        "user/app/memory.max": "max\n",
        "user/app/memory.current": "5\n",
        "user/app/memory.stat": "inactive_file 0\n",
        "user/memory.max": f"{4 * GIB}\n",
        "user/memory.current": f"{3 * GIB}\n",
        "user/memory.stat": f"anon 7\ninactive_file {GIB}\n",
    }
    assert available_bytes(machine(tmp_path, "0::/user/app\n", files)) == 2 * GIB


def test_within_a_container_the_mount_is_the_group(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{GIB}\n",
        "memory.current": f"{GIB // 4}\n",
        "memory.stat": "inactive_file 0\n",
    }
    assert available_bytes(machine(tmp_path, "0::/\n", files)) == 3 * GIB // 4


def test_the_older_kind_of_groups(tmp_path: Path) -> None:
    files = {
        "memory/box/memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory/box/memory.usage_in_bytes": f"{GIB}\n",
        "memory/box/memory.stat": f"total_inactive_file {GIB // 2}\n",
    }
    groups = "8:cpu,cpuacct:/box\n4:memory:/box\n0::/\n"
    assert available_bytes(machine(tmp_path, groups, files)) == 3 * GIB // 2


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{GIB}\n",
        "memory.current": f"{2 * GIB}\n",
        "memory.stat": "inactive_file 0\n",
    }
    assert available_bytes(machine(tmp_path, "0::/\n", files)) == 0


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    assert budget_bytes(None) > 0


@pytest.mark.parametrize(
    ("available", "left_alone"),
    [(1 * GIB, GIB // 2), (20 * GIB, 2 * GIB), (100 * GIB, 4 * GIB)],
)
def test_some_is_left_to_the_system(available: int, left_alone: int) -> None:
    assert budget_bytes(available) == pytest.approx(available - left_alone, rel=1e-6)
    assert budget_bytes(1000) == 0


def test_loading_is_learned() -> None:
    times = LoadTimes()
    guess_s = times.estimate_s("a", 3_000_000_000)
    assert 5 < guess_s < 30
    times.took("a", 3_000_000_000, 4.0)
    assert times.estimate_s("a", 3_000_000_000) == 4.0
    assert times.estimate_s("b", 3_000_000_000) < guess_s  # the disk is faster than was thought
    assert times.left_s("a", 0, elapsed_s=3.0, progress=0.0) == 1.0
    assert times.left_s("a", 0, elapsed_s=6.0, progress=0.75) == 2.0
    assert times.left_s("a", 0, elapsed_s=60.0, progress=0.0) == 0.0


def test_what_a_machine_has_is_what_its_groups_leave_it(tmp_path: Path) -> None:
    """Whatever is used of it."""
    assert machine_bytes() >= (available_bytes() or 0)
    files = {
        "user/app/memory.max": "max\n",
        "user/memory.max": f"{GIB // 2}\n",
        "user/memory.current": f"{GIB // 2}\n",
        "user/memory.stat": "inactive_file 0\n",
    }
    root = machine(tmp_path, "0::/user/app\n", files)
    assert machine_bytes(root) == GIB // 2
    assert available_bytes(root) == 0


def test_swap_can_be_taken_where_no_group_forbids_it(tmp_path: Path) -> None:
    root = machine(tmp_path, "", {})
    assert takeable_bytes(root) == 8 * GIB
    (root / "proc/meminfo").write_text(MEMINFO + "SwapFree: 2097152 kB\n")
    assert takeable_bytes(root) == 10 * GIB
    assert available_bytes(root) == 8 * GIB
    files = {
        "app/memory.max": f"{GIB}\n",
        "app/memory.current": f"{GIB // 4}\n",
        "app/memory.stat": "inactive_file 0\n",
    }
    boxed = machine(tmp_path / "boxed", "0::/app\n", files)
    assert takeable_bytes(boxed) == 3 * GIB // 4
    assert takeable_bytes(tmp_path / "elsewhere") is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("configured", [1 << 52, None])
async def test_a_model_is_not_loaded_beyond_what_is_free(configured: int | None) -> None:
    """However much the configuration allows. Its callers hear what lacks, and others are served."""
    there = available_bytes()
    assert there is not None
    # More than there is now, but not than models may ever have, where the start found that out.
    needs = 1 << 51 if configured else int(budget_bytes(there) * 0.999)
    hungry = model("hungry", f"fake:footprint_bytes={needs}")
    async with sharing(hungry, model("modest"), memory_bytes_max=configured) as local:
        if configured is None:
            local.runtime.room._available_bytes = lambda: 100 << 20  # another program came
        with pytest.raises(AdapterError, match=r"needs about \d+ MiB.*MiB to give") as caught:
            await local.runtime.models["hungry"].supervisor.enter(0.3)
        assert caught.value.kind is FailureKind.LOADING
        assert local.runtime.models["hungry"].supervisor.state == "cold"
        assert (await ask(local, "modest")).text() == "echo: hi"
