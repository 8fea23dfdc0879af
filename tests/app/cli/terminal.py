"""Runs the command line as a person or a script would."""

import io
import os
import pty
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import msgspec

from app.cli import main


class Turnpike:
    """``turnpike`` on one data directory, in a process of its own."""

    def __init__(self, data_dir: Path, config: Path | None = None) -> None:
        self.data_dir = data_dir
        self._options = ["--data-dir", str(data_dir)]
        if config is not None:
            self._options += ["--config", str(config)]
        self._command = [sys.executable, "-m", "app", *self._options]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Piped; whatever the exit status."""
        return subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Piped, and left running."""
        return subprocess.Popen(
            [*self._command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def out(self, *arguments: str) -> str:
        """The stdout of a command that succeeds and says nothing on stderr."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The decoded output of a command with ``--json``."""
        return msgspec.json.decode(self.out(*arguments, "--json"))

    def refused(self, *arguments: str, status: int = 1) -> str:
        """The one line on stderr of a command that fails."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1
        return done.stderr

    def on_terminal(self, *arguments: str) -> str:
        """What a person on an 100-column terminal sees."""
        parent, child = pty.openpty()
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=child,
                stderr=child,
                timeout=60,
                env=os.environ | {"COLUMNS": "100", "TERM": "dumb"},
                check=False,
            )
            shown = os.read(parent, 1 << 20).decode().replace("\r\n", "\n")
        finally:
            os.close(child)
            os.close(parent)
        assert done.returncode == 0, shown
        return shown


class Inside(Turnpike):
    """The same within this process: a tenth of the time, for what needs no process of its own."""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main.run([*self._options, *arguments])
        return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
