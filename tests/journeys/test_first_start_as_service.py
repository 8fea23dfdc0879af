"""Promise: a secret is not shown where others may read it for years, in systemd's journal."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.appliance import cli


def test_the_journal_gets_no_key(tmp_path: Path) -> None:
    config, data_dir, output = tmp_path / "c.toml", tmp_path / "data", tmp_path / "journal"
    config.write_text(
        "[server]\nport = 0\n"
        '[[local.models]]\nid = "acme/fake"\nsource = "fake:"\nengine = "fake"\n'
    )
    with output.open("w") as journal:
        stream = os.fstat(journal.fileno())
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "app", "--config", str(config)),
                *("--data-dir", str(data_dir), "serve"),
            ],
            stdout=journal,
            stderr=subprocess.STDOUT,
            env=os.environ | {"JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"},
        )
    try:
        give_up = time.monotonic() + 60
        while "API key" not in (printed := output.read_text()):
            assert process.poll() is None, printed
            assert time.monotonic() < give_up, printed
            time.sleep(0.05)
        assert not re.search(r"\btp_", printed)
        made = cli(data_dir, "keys", "create", "--user", "owner", config=config)
        assert re.search(r"\btp_", made), "the command that it names gives the owner a key"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not re.search(r"\btp_", output.read_text())
