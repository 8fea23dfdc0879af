"""``turnpike health``: an exit status for whoever watches."""

import json
import subprocess
import sys
from pathlib import Path

from tests.appliance import appliance

FAKE = """
[[local.models]]
id = "acme/fake"
source = "fake:"
engine = "fake"
"""


def health(config: Path, data_dir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "app", "--config", str(config), "--data-dir", str(data_dir)),
            *("health", *more),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_finds_the_server_of_the_data_directory_or_of_the_configuration(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    data_dir = tmp_path / "data"
    config = f"[server]\nport = {unused_tcp_port}\n{FAKE}"
    with appliance(data_dir, config) as running:
        by_file = health(running.config_path, data_dir)
        assert by_file.returncode == 0
        assert by_file.stdout == f"{running.base_url} takes calls\n"
        by_address = health(running.config_path, tmp_path / "elsewhere", "--json")
        assert by_address.returncode == 0
        assert json.loads(by_address.stdout) == {
            "url": running.base_url,
            "status": "ready",
            "problems": {},
        }
        assert not (tmp_path / "elsewhere").exists()  # it makes nothing
        assert running.stop() == 0
    silent = health(data_dir / "config.toml", data_dir)
    assert silent.returncode == 1
    assert "takes no calls: server: it does not answer" in silent.stderr
    assert silent.stdout == ""
    told = json.loads(health(data_dir / "config.toml", data_dir, "--json").stdout)
    assert told["status"] == "silent"
