"""The build that runs on this processor is found in a child: real libraries, real deaths."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.llama import variants
from local_runtime.engines.llama.libraries import built_in, library_folder, processor_variants

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="builds libraries with gcc"
)

ROOT = Path(__file__).resolve().parents[4]
ILLEGAL = '__asm__("ud2");' if os.uname().machine == "x86_64" else '__asm__(".word 0");'


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "_known", {})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Which probes were run: a worker that notes its order before it works."""
    return tmp_path / "orders"


@pytest.fixture
def command(tmp_path: Path, log: Path) -> list[str]:
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, pathlib, sys\n"
        f"with open({str(log)!r}, 'a') as notes:\n"
        "    notes.write(os.environ['TURNPIKE_PROBE'] + '\\n')\n"
        "from local_runtime.worker import main\n"
        "sys.exit(main())\n"
    )
    return [sys.executable, str(script)]


def library(folder: Path, name: str, source: str, *link: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"libggml-cpu-{name}.so"
    code = folder / f"{name}.c"
    code.write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, code, *link], check=True)
    code.unlink()
    return path


def score(value: int) -> str:
    return f"int ggml_backend_score(void) {{ return {value}; }}\n"


def dies(folder: Path, name: str, merit: int) -> Path:
    """As a library for a better processor than this one."""
    return library(
        folder, name, score(merit) + f"void *ggml_backend_init(void) {{ {ILLEGAL} return 0; }}"
    )


def works(folder: Path, name: str, merit: int) -> Path:
    """The real code, under a variant's name."""
    lib = library_folder()
    assert lib is not None
    return library(
        folder,
        name,
        score(merit) + "void *ggml_backend_cpu_reg(void);\n"
        "void *ggml_backend_init(void) { return ggml_backend_cpu_reg(); }",
        f"-L{lib}",
        "-lggml-cpu",
        f"-Wl,-rpath,{lib}",
    )


def orders(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_the_best_that_runs_is_chosen_and_remembered(
    tmp_path: Path, command: list[str], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = tmp_path / "lib", tmp_path / "cache" / "answers.json"
    dies(folder, "best", 300)
    library(folder, "null", score(200) + "void *ggml_backend_init(void) { return 0; }")
    works(folder, "good", 100)
    works(folder, "plain", 50)
    library(folder, "other", score(0) + "void *ggml_backend_init(void) { return 0; }")
    library(folder, "deadly", f"int ggml_backend_score(void) {{ {ILLEGAL} return 400; }}")

    chosen = variants.choose(command, folder=folder, cache=cache)
    assert Path(chosen) == folder / "libggml-cpu-good.so"
    tried = [Path(str(order["library"])).name for order in orders(log) if "library" in order]
    assert tried == ["libggml-cpu-best.so", "libggml-cpu-null.so", "libggml-cpu-good.so"]

    log.unlink()
    monkeypatch.setattr(variants, "_known", {})
    assert variants.choose(command, folder=folder, cache=cache) == chosen
    assert not log.exists()  # the answer was kept

    monkeypatch.setattr(variants, "_known", {})
    works(folder, "better", 150)  # the libraries have changed, so it is asked again
    assert Path(variants.choose(command, folder=folder, cache=cache)).name.endswith("better.so")


def test_none_that_runs_is_a_message(tmp_path: Path, command: list[str]) -> None:
    folder = tmp_path / "lib"
    dies(folder, "best", 300)
    with pytest.raises(EngineLoadError, match=r"libggml-cpu-best\.so.*illegal instruction"):
        variants.choose(command, folder=folder, cache=tmp_path / "answers.json")
    assert not (tmp_path / "answers.json").exists()


def test_a_damaged_answer_is_asked_again(tmp_path: Path, command: list[str], log: Path) -> None:
    folder, cache = tmp_path / "lib", tmp_path / "answers.json"
    works(folder, "good", 100)
    chosen = variants.choose(command, folder=folder, cache=cache)
    key = next(iter(json.loads(cache.read_text())))
    for damaged in ("{", "[1]", json.dumps({key: "../../evil.so"})):
        variants._known.clear()
        log.unlink()
        cache.write_text(damaged)
        assert variants.choose(command, folder=folder, cache=cache) == chosen
        assert log.exists()


def test_what_is_installed_runs(tmp_path: Path, command: list[str], log: Path) -> None:
    assert variants.choose(command, cache=tmp_path / "answers.json") == ""
    if not processor_variants():
        assert orders(log) == [{"library": ""}]


def test_an_installed_build_that_cannot_run_says_what_to_do(
    tmp_path: Path, command: list[str]
) -> None:
    """The real libraries, with one instruction in the kernels that this processor has not."""
    lib = library_folder()
    assert lib is not None
    folder = tmp_path / "lib"
    shutil.copytree(lib, folder)
    for path in {path.resolve() for path in built_in(folder)}:
        _break(path, b"ggml_graph_compute")
    with pytest.raises(EngineLoadError, match=r"illegal instruction.*make portable"):
        variants.choose(
            command,
            folder=folder,
            cache=tmp_path / "answers.json",
            environment=dict(os.environ) | {"LLAMA_CPP_LIB_PATH": str(folder)},
        )


def test_a_probe_that_cannot_be_started_stops_nobody(tmp_path: Path) -> None:
    missing = [str(tmp_path / "no-such-program")]
    assert variants.choose(missing, cache=tmp_path / "answers.json") == ""


def _break(path: Path, function: bytes) -> None:
    """Put an undefined instruction at the start of an exported function of an ELF file."""
    data = bytearray(path.read_bytes())
    listed = subprocess.run(["nm", "-D", path], capture_output=True, text=True, check=True).stdout
    address = next(
        int(line.split()[0], 16)
        for line in listed.splitlines()
        if line.split()[-1].encode() == function
    )
    start, size, count = struct.unpack_from("<Q14xHH", data, 32)
    for number in range(count):
        kind, _, offset, virtual = struct.unpack_from("<IIQQ", data, start + number * size)
        length = struct.unpack_from("<Q", data, start + number * size + 32)[0]
        if kind == 1 and virtual <= address < virtual + length:
            at = address - virtual + offset
            data[at : at + 2] = b"\x0f\x0b"
            path.write_bytes(data)
            return
    raise AssertionError("no segment holds the function")
