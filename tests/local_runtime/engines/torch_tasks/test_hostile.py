"""Files that were changed at random: loaded or refused in words, and the process lives on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_runtime.engines.torch_tasks.serving import torch_is_here
from tests.local_runtime.engines.torch_tasks.hub_folder import HubModel

pytestmark = pytest.mark.skipif(not torch_is_here(), reason="`make torch` installs what it needs")

MUTATIONS = int(os.environ.get("TURNPIKE_TORCH_MUTATIONS", "150"))

# In a process of its own, so that a crash is seen as what it is.
_TRY = """
import json, random, sys
from pathlib import Path
from local_runtime.engines.builtin import make_engine
from local_runtime.engines.contract import EncodeTask, EngineLoadError, EngineRequest, EngineSpec

folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
whole = {name: (folder / name).read_bytes() for name in sys.argv[4:]}
told = {"loaded": 0, "refused": 0, "answered": 0}

def changed(data):
    data = bytearray(data)
    way = chance.randrange(4)
    if way == 0:
        del data[chance.randrange(len(data)):]
    elif way == 1:
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(min(len(data), 4000))] = chance.randrange(256)
    elif way == 2:
        numbers = [at for at in range(min(len(data), 6000)) if chr(data[at]).isdigit()]
        for at in chance.sample(numbers, min(3, len(numbers))):
            data[at:at + 1] = chance.choice([b"0", b"9", b"99999999999999999999", b"-1", b"1e9"])
    else:
        begin = chance.randrange(len(data))
        data[begin:begin + chance.randint(1, 300)] = b""
    return bytes(data)

for number in range(count):
    name = chance.choice(list(whole))
    (folder / name).write_bytes(changed(whole[name]))
    engine = make_engine("torch")
    try:
        engine.load(EngineSpec(engine="torch", path=str(folder / "model.safetensors"), threads=1),
                    lambda fraction: None)
    except EngineLoadError as error:
        assert len(str(error)) < 2000
        told["refused"] += 1
    else:
        told["loaded"] += 1
        task = EncodeTask(texts=["the toll road", "[SEP] \\u0000 \\U0001f600", [0, 1]])
        engine.submit(EngineRequest(request_id="r", encode=task))
        while engine.has_work:
            engine.step()
        told["answered"] += 1
        engine.unload()
    (folder / name).write_bytes(whole[name])
print(json.dumps(told))
"""


@pytest.mark.parametrize("files", [("tokenizer.json",), ("config.json", "model.safetensors")])
def test_mutated_files_end_no_process(tmp_path: Path, files: tuple[str, ...]) -> None:
    path = HubModel().write(tmp_path / "model")
    seed = os.environ.get("TURNPIKE_SEED", "11")
    done = subprocess.run(
        [sys.executable, "-c", _TRY, path.parent, seed, str(MUTATIONS), *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["loaded"] + told["refused"] == MUTATIONS
    assert told["refused"] > MUTATIONS // 3
    assert told["answered"] == told["loaded"]
