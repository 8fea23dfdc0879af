"""Where the log goes, and that everything that a process has to say comes as lines of it."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from app.config import Config
from app.config_operations import Logs
from app.errors import ConfigError
from app.logs.fields import FIELDS
from app.logs.output import LogOutput

_UNCAUGHT = """
import asyncio, logging, threading, warnings
from app.config import Config
from app.config_operations import Logs
from app.logs.output import LogOutput, log_what_nobody_caught
LogOutput().take_over(Config(logs=Logs(format="json")))
log_what_nobody_caught()
def die(): raise ValueError("in a thread\\nforged")
thread = threading.Thread(target=die); thread.start(); thread.join()
class Odd:
    def __del__(self): raise KeyError("in a finalizer")
Odd()
warnings.warn("old", DeprecationWarning, stacklevel=1)
warnings.warn("odd", UserWarning, stacklevel=1)
async def lost():
    async def fail(): raise OSError("in a task")
    asyncio.create_task(fail())
    await asyncio.sleep(0.01)
asyncio.run(lost())
logging.getLogger("httpx2").info("GET a signed address")
logging.getLogger("x").info("%d", "no number")
extra = {"prompt": "secret", "body": {"a": 1}, "model": "m"}
logging.getLogger("x").warning("prompt: %s", 1, extra=extra)
"""


def test_what_nobody_caught_comes_as_lines_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNCAUGHT], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(set(line) <= set(FIELDS) for line in lines)
    said = [line.get("error", line["message"]) for line in lines]
    expected = ["in a thread\nforged", "in a finalizer", "UserWarning: odd", "in a task"]
    assert [word for word in expected if not any(word in each for each in said)] == []
    assert "signed address" not in done.stderr
    assert "do not fit" in lines[-2]["message"]
    assert {"logger": "x", "message": "prompt: 1", "model": "m"}.items() <= lines[-1].items()
    assert "secret" not in done.stderr


def told(path: Path, **more: object) -> Config:
    logs = msgspec.structs.replace(Logs(file=str(path), format="json"), **more)
    return Config(logs=logs)


def test_a_change_that_fails_changes_nothing(tmp_path: Path, own_logging: None) -> None:
    output = LogOutput()
    output.take_over(told(tmp_path / "a.log"))
    with pytest.raises(ConfigError, match="no folder"):
        output.prepare(told(tmp_path / "nowhere" / "b.log"))
    logging.getLogger("x").warning("one")
    use = output.prepare(told(tmp_path / "b.log"))
    logging.getLogger("x").warning("two")
    use()
    logging.getLogger("x").warning("three")
    first, second = ((tmp_path / name).read_text() for name in ("a.log", "b.log"))
    assert [json.loads(line)["message"] for line in first.splitlines()] == ["one", "two"]
    assert [json.loads(line)["message"] for line in second.splitlines()] == ["three"]


def test_lines_that_were_lost_are_counted_over_reloads(tmp_path: Path, own_logging: None) -> None:
    output = LogOutput()
    for expected in (1, 2):
        output.take_over(told(tmp_path / "a.log"))
        (handler,) = logging.getLogger().handlers
        handler.handleError(logging.makeLogRecord({}))
        assert output.lost == expected
    output.take_over(Config())
    assert output.lost == 2
