"""What an encoder is thought to take, against what it does take in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local_runtime.engines.llama.encoder_size import encoder_bytes
from local_runtime.engines.llama.footprint import MARGIN_BYTES, MARGIN_SHARE, PROCESS_BYTES
from local_runtime.store.gguf import read_header
from tests.local_runtime import bert

_PROGRAM = """
import json, sys
from pathlib import Path
from local_runtime.engines.llama import devices
from tests.local_runtime.engines.llama.encoding import load, vectors
path, length = Path(sys.argv[1]), int(sys.argv[2])
before = devices.memory_now()
engine, info = load(path, context_length=length)
vectors(engine, [10] * length, *[[10] * 8] * 64)
print(json.dumps([devices.memory_now() - before, info.memory_bytes]))
"""


@pytest.fixture(params=["all-MiniLM-L6-v2", "long"])
def model(request: pytest.FixtureRequest, tmp_path: Path, minilm_file: Path) -> tuple[Path, int]:
    if request.param == "long":
        path = tmp_path / "long.gguf"
        bert.small(context_length=2048, width=128).write(path, bert.MEAN)
        return path, 2048
    return minilm_file, 512


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="resident memory is read from /proc"
)
def test_memory_is_foreseen(model: tuple[Path, int]) -> None:
    path, length = model
    command = [sys.executable, "-c", _PROGRAM, str(path), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    grew, told = json.loads(done.stdout)
    foreseen = encoder_bytes(read_header(path), length)
    assert told >= foreseen
    assert grew <= foreseen * (1 + MARGIN_SHARE)
    assert foreseen - PROCESS_BYTES <= grew * (1 + MARGIN_SHARE) + MARGIN_BYTES
