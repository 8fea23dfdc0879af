"""A child that wants more memory than it may have ends by itself, and everybody hears why."""

import asyncio
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.contract import EngineLoadError, EngineSpec, Failed
from local_runtime.placement import memory_cap
from local_runtime.placement.child import ChildHost
from local_runtime.placement.memory_cap import (
    MemoryCap,
    cap_bytes,
    complains_of_memory,
    kernel_kills,
)
from local_runtime.runtime import LocalModelSpec
from plugins.contract import AdapterError, FailureKind
from tests.local_runtime.calls import (
    MODEL,
    SMOLLM_SOURCE,
    answer,
    collect,
    engine_request,
    order,
    smollm_path,
    text_of,
)
from tests.local_runtime.conftest import Serve
from tests.local_runtime.sharing import sharing, until

MIB = 1 << 20
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")


def fake(**options: object) -> EngineSpec:
    texts = {name: str(value) for name, value in options.items()}
    return EngineSpec(engine="fake", options=texts, sequences_max=4)


def proc(pid: int | str | None, name: str) -> str:
    """What the kernel says of a process."""
    return Path(f"/proc/{pid}/{name}").read_text()


class Hits:
    """How often a cap was hit."""

    def __init__(self) -> None:
        self.count = 0

    def cap(self, bytes_max: int | None) -> MemoryCap:
        return MemoryCap(bytes_max=bytes_max, on_hit=self._hit)

    def _hit(self) -> None:
        self.count += 1


@linux_only
async def test_a_child_that_takes_more_than_it_may_ends() -> None:
    hits = Hits()
    host = ChildHost(fake(grab_on="MORE"), memory=hits.cap(300 * MIB))
    await host.start(lambda _fraction: None)
    limits = proc(host.stats.pid, "limits")
    (line,) = [line for line in limits.splitlines() if line.startswith("Max data size")]
    assert line.split()[3:5] == [str(300 * MIB)] * 2, "and it cannot raise it"
    assert text_of(await collect(host, engine_request("calm"))) == "echo: calm"
    events = await collect(host, engine_request("give me MORE"))
    last = events[-1]
    assert isinstance(last, Failed) and last.kind is FailureKind.CRASHED
    assert "ran out of memory" in last.message and "shorter prompt" in last.message
    why = await asyncio.wait_for(host.died(), 5)
    assert "300 MiB" in why and "process_bytes_max" in why and "context_length" in why
    assert hits.count == 1
    await host.close()


@linux_only
async def test_a_real_model_with_too_small_a_cap_is_not_loaded_and_says_why() -> None:
    """The weights alone are 100 MB; llama.cpp gives up in order, and the reason is in its log."""
    hits = Hits()
    spec = EngineSpec(engine="llama", path=str(smollm_path()), context_length=2048)
    host = ChildHost(spec, memory=hits.cap(160 * MIB))
    with pytest.raises(EngineLoadError, match=r"160 MiB of memory.*process_bytes_max"):
        await host.start(lambda _fraction: None)
    assert hits.count == 1
    await host.close()


@pytest.mark.skipif(memory_cap.accelerated(), reason="no cap is chosen beside accelerators")
async def test_a_real_model_fits_under_the_cap_that_is_chosen_for_it(serve: Serve) -> None:
    adapter = await serve(SMOLLM_SOURCE, process_bytes_max="auto", context_length=8192)
    model = adapter.runtime.models[MODEL]
    await adapter.runtime.load(MODEL)
    found = [await answer(adapter, order("Tell me a story.", max_tokens=40)) for _ in range(3)]
    assert all(each.text() for each in found)
    pid = model.supervisor.stats.pid
    status = proc(pid, "status")
    (data,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmData")]
    most = cap_bytes("auto", model.supervisor.needs_bytes)
    assert most is not None
    assert int(data) * 1024 < most / 2, "the margin is a margin"
    assert model.supervisor.loads.out_of_memory == 0


@linux_only
async def test_a_model_that_goes_on_hitting_it_is_quarantined_with_the_reason(
    serve: Serve,
) -> None:
    adapter = await serve("fake:grab_on=MORE", process_bytes_max=200 * MIB)
    supervisor = adapter.runtime.models[MODEL].supervisor
    for times in range(1, 4):
        with pytest.raises(AdapterError, match="ran out of memory") as caught:
            await answer(adapter, order("give me MORE"))
        assert caught.value.kind is FailureKind.CRASHED
        await until(lambda times=times: supervisor.loads.out_of_memory == times)
        if times < 3:  # it is started anew, and goes on for everybody else
            assert (await answer(adapter, order("calm"))).text() == "echo: calm"
    await until(lambda: supervisor.state == "failed")
    (status,) = adapter.runtime.status()
    assert status.error is not None
    assert "3 times" in status.error and "200 MiB" in status.error
    with pytest.raises(AdapterError, match="out of service") as caught:
        await answer(adapter, order("calm"))
    assert "process_bytes_max" in caught.value.detail


@linux_only
async def test_one_models_hunger_is_not_anothers() -> None:
    """Its own setting goes before the runtime's."""
    specs = [
        LocalModelSpec(id="tight", source="fake:grab_on=MORE", process_bytes_max=150 * MIB),
        LocalModelSpec(id="loose", source="fake:"),
    ]
    async with sharing(*specs, process_bytes_max="off") as found:
        await found.runtime.load("tight")
        await found.runtime.load("loose")
        pids = [status.pid for status in found.runtime.status()]
        limits = [proc(pid, "limits") for pid in pids]
    assert [str(150 * MIB) in text for text in limits] == [True, False]


@linux_only
async def test_the_kernel_takes_the_child_first() -> None:
    host = ChildHost(fake())
    await host.start(lambda _fraction: None)
    theirs = int(proc(host.stats.pid, "oom_score_adj"))
    await host.close()
    ours = int(proc("self", "oom_score_adj"))
    assert theirs == max(500, min(1000, ours + 200))


@linux_only
async def test_it_stays_above_a_server_with_a_high_score_of_its_own() -> None:
    """As containers that may burst have (Kubernetes gives up to 999)."""
    code = (
        "import asyncio, pathlib\n"
        "pathlib.Path('/proc/self/oom_score_adj').write_text('700')\n"
        "from local_runtime.engines.contract import EngineSpec\n"
        "from local_runtime.placement.child import ChildHost\n"
        "async def work():\n"
        "    host = ChildHost(EngineSpec(engine='fake'))\n"
        "    await host.start(lambda _f: None)\n"
        "    print(pathlib.Path(f'/proc/{host.stats.pid}/oom_score_adj').read_text())\n"
        "    await host.close()\n"
        "asyncio.run(work())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    said, _ = await asyncio.wait_for(child.communicate(), 30)
    assert int(said) == 900


def test_a_kill_by_the_kernel_is_told_from_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "vmstat").write_text("nr_free_pages 5\noom_kill 7\noom_kill_other 9\n")
    assert kernel_kills(tmp_path) == 7
    assert kernel_kills(tmp_path / "elsewhere") == 0
    monkeypatch.setattr("local_runtime.placement.child.kernel_kills", lambda: 8)
    hits = Hits()
    host = ChildHost(fake(), memory=hits.cap(None))
    host._kernel_kills = [7, 8]
    assert "kernel" in host._want_of_memory(-9)
    assert hits.count == 1
    host._kernel_kills = [8, 8]
    assert host._want_of_memory(-9) == "", "somebody's kill -9"
    assert host._want_of_memory(-11) == ""
    assert host._want_of_memory(0) == ""
    assert hits.count == 1


@pytest.mark.parametrize(
    "line",
    [
        "MemoryError",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 288.00 MB)",
        "alloc_tensor_range: failed to allocate CPU buffer of size 301989888",
        "OSError: [Errno 12] Cannot allocate memory",
        "RuntimeError: can't start new thread",
    ],
)
def test_how_native_code_and_python_complain(line: str) -> None:
    assert complains_of_memory(["loading", f"local_runtime.llama: {line}"])
    assert not complains_of_memory(["loading", "memory is fine", "illegal instruction"])


without_accelerators = pytest.mark.skipif(
    memory_cap.accelerated(), reason="there are accelerators, whose drivers take memory too"
)


@without_accelerators
@given(needs=st.integers(0, 1 << 40), cores=st.integers(1, 512))
def test_the_chosen_cap_leaves_a_quarter_and_a_gib(needs: int, cores: int) -> None:
    found = cap_bytes("auto", needs, cores=cores)
    assert found is not None
    assert found >= needs + needs // 4 + (1 << 30)
    assert cap_bytes("auto", needs, cores=cores, sees=True) == found + (2 << 30)
    assert found <= needs + needs // 4 + (1 << 30) + 2 * cores * (8 << 20)
    assert cap_bytes(123456789, needs) == 123456789
    assert cap_bytes("off", needs) is None


def test_no_cap_is_chosen_where_drivers_take_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_cap, "accelerators", lambda: [Path("libggml-cuda.so")])
    assert cap_bytes("auto", 1 << 30) is None
    assert cap_bytes(1 << 31, 1 << 30) == 1 << 31, "but one that is asked for holds"
