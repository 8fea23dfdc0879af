"""A real ``turnpike serve`` process on loopback, for journeys and benches."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

START_SECONDS_MAX = 40.0
# What every journey with a played provider puts in its file; 200 and 600 nano-USD a token.
MOCK_PROVIDER = """
[[providers]]
id = "mock"
plugin = "openai_compatible"
base_url = "{base_url}"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
"""

NO_BALLAST = "[disk]\nballast_bytes = 0\nfree_bytes_min = 0\n"


@dataclass
class RunningAppliance:
    """The process and how to reach it."""

    process: subprocess.Popen[str]
    data_dir: Path
    config_path: Path
    base_url: str
    env: dict[str, str] = field(repr=False)
    binary: Path | None = None

    def cli(self, *args: str) -> str:
        """Run a command against this data directory; its stdout. Fails on a non-zero exit."""
        return cli(self.data_dir, *args, config=self.config_path, env=self.env, binary=self.binary)

    def key(self, user: str = "owner") -> str:
        """A fresh API key."""
        return self.cli("keys", "create", "--user", user).strip()

    def user(self, name: str, tier: str = "free") -> str:
        """A fresh user; their API key."""
        self.cli("users", "add", name, "--tier", tier)
        return self.key(name)

    def usage(self, by: str = "model") -> list[dict[str, Any]]:
        """``turnpike usage`` as data."""
        found: list[dict[str, Any]] = json.loads(self.cli("usage", "--by", by, "--json"))
        return found

    def chat(self, key: str, model: str, text: str = "Hello", **params: Any) -> httpx.Response:
        """One plain chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **params}
        return httpx.post(
            f"{self.base_url}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
            trust_env=False,
        )

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


def cli(
    data_dir: Path,
    *args: str,
    config: Path | None = None,
    env: dict[str, str] | None = None,
    binary: Path | None = None,
) -> str:
    """Run ``turnpike ARGS`` on a data directory; its stdout."""
    command = program_command("app" if binary is None else binary)
    if config is not None:
        command += ["--config", str(config)]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir), *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"turnpike {' '.join(args)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def program_command(program: str | Path) -> list[str]:
    """How to run a module of the source, or a binary."""
    return [str(program)] if isinstance(program, Path) else [sys.executable, "-m", program]


@contextmanager
def appliance(
    data_dir: Path,
    config: str = "",
    env: dict[str, str] | None = None,
    program: str | Path = "app",
    inside: Callable[..., list[str]] = lambda *command: list(command),
) -> Iterator[RunningAppliance]:
    """Start one on a free port, wait until it is ready, and end it with its own id.

    ``program`` is the module that is run (the benchmarks have one that does not bill), or the path
    of a binary. ``inside`` makes a command one that runs somewhere else, with the same process id.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    config_path = data_dir / "config.toml"
    if "[server]" not in config:
        config = f"[server]\nport = 0\n{config}"
    if "[routing" not in config:  # probes would be in the played providers' books
        config = f"[routing]\nprobes = false\n{config}"
    if "[disk]" not in config:  # no file of 64 MiB in every test's folder, nor a full machine's no
        config = NO_BALLAST + config
    config_path.write_text(config)
    environment = {**os.environ, **(env or {})}
    log_path = data_dir / "serve.log"
    with log_path.open("a") as log:
        process = subprocess.Popen(
            inside(
                *program_command(program),
                *("--config", str(config_path), "--data-dir", str(data_dir), "serve"),
            ),
            stdout=log,
            stderr=log,
            text=True,
            env=environment,
        )
    try:
        base_url = _wait_until_ready(process, data_dir, log_path)
        binary = program if isinstance(program, Path) else None
        yield RunningAppliance(process, data_dir, config_path, base_url, environment, binary)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait_until_ready(process: subprocess.Popen[str], data_dir: Path, log_path: Path) -> str:
    give_up = time.monotonic() + START_SECONDS_MAX
    endpoint = data_dir / "server.json"
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise AssertionError(f"serve exited {process.returncode}: {log_path.read_text()}")
        try:
            found = json.loads(endpoint.read_text())
            if found["pid"] == process.pid:
                url: str = found["base_url"]
                if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                    return url
        except (OSError, ValueError, httpx.TransportError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"serve was not ready in time: {log_path.read_text()}")
