"""``turnpike serve --check``: what a start would find out, without one."""

import sqlite3
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


def check(config: Path, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "app", "--config", str(config), "--data-dir", str(data_dir)),
            *("serve", "--check"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_says_yes_beside_a_running_server_and_before_the_first(tmp_path: Path) -> None:
    with appliance(tmp_path / "data", FAKE) as running:
        done = check(running.config_path, running.data_dir)
        assert (done.returncode, done.stderr) == (0, "")
        assert "can start" in done.stdout
        assert running.process.poll() is None
        before = check(running.config_path, tmp_path / "none")
        assert before.returncode == 0
        assert not (tmp_path / "none").exists()  # it makes nothing


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    """A roll-back over an upgrade that changed the database is found out before anything stops."""
    with appliance(tmp_path / "data", FAKE) as running:
        assert running.stop() == 0
    database = sqlite3.connect(tmp_path / "data" / "turnpike.db")
    database.execute("INSERT INTO schema_migrations VALUES (9999, '9999_later.sql', 'ff', 1)")
    database.commit()
    database.close()
    refused = check(tmp_path / "data" / "config.toml", tmp_path / "data")
    assert refused.returncode == 1
    assert "9999_later.sql" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_model_or_a_secret_that_is_missing_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    wrong = {
        '[[local.models]]\nid = "a/b"\nsource = "file:/nowhere/m.gguf"\n': "/nowhere/m.gguf",
        '[[providers]]\nid = "x"\nplugin = "echo"\napi_key = "file:/nowhere/key"\n': "/nowhere/key",
        "[server]\nport = 'x'\n": "server.port",
    }
    for text, told in wrong.items():
        config.write_text(text)
        refused = check(config, tmp_path / "data")
        assert refused.returncode == 1, text
        assert told in refused.stderr
