"""Promise: models of this machine are loaded when they are called, make room for each other without
breaking a stream, and everybody can see what they do: callers, the operator, and Prometheus.
"""

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from tests.app.cli.terminal import Inside
from tests.appliance import RunningAppliance, appliance

CONFIG = """
[local]
placement = "child"
memory_bytes_max = 100
step_s_max = 5.0
[[local.models]]
id = "tiny/a"
source = "fake:memory_bytes=60,tokens_per_second=50"
engine = "fake"
preload = false
[[local.models]]
id = "tiny/b"
source = "fake:memory_bytes=60,load_seconds=0.5"
engine = "fake"
preload = false
[[local.models]]
id = "tiny/big"
source = "fake:memory_bytes=101"
engine = "fake"
preload = false
"""


def ask(
    server: RunningAppliance, key: str, model: str, text: str = "hi", **headers: str
) -> httpx.Response:
    return httpx.post(
        f"{server.base_url}/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": text}]},
        headers={"authorization": f"Bearer {key}", **headers},
        timeout=60,
        trust_env=False,
    )


def metric(server: RunningAppliance, name: str, **labels: str) -> float:
    text = httpx.get(f"{server.base_url}/metrics", trust_env=False).text
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        found = dict(re.findall(r'(\w+)="([^"]*)"', head))
        if head.partition("{")[0] == name and labels.items() <= found.items():
            return float(value)
    raise AssertionError(f"no {name} with {labels}")


class Watcher:
    """Reads the events, as a console would."""

    def __init__(self, server: RunningAppliance, token: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.ended = False
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(server, token), daemon=True)
        self._thread.start()
        assert self._begun.wait(10)

    def _read(self, server: RunningAppliance, token: str) -> None:
        url = f"{server.base_url}/api/local/events"
        headers = {"authorization": f"Bearer {token}", "last-event-id": "0"}
        with httpx.stream("GET", url, headers=headers, timeout=60, trust_env=False) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            self._begun.set()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self.events.append(json.loads(line.removeprefix("data: ")))
        self.ended = True

    def join(self) -> None:
        self._thread.join(10)


def operate(commands: Inside) -> None:
    """The operator's commands, and what they say."""
    assert "tiny/b is warm, 60 B" in commands.out("models", "load", "tiny/b")
    assert "tiny/b is cold" in commands.out("models", "unload", "tiny/b")
    assert "needs 101 bytes" in commands.refused("models", "load", "tiny/big")
    assert "there are: tiny/a, tiny/b" in commands.refused("models", "load", "tiny/none")


def events_status(
    server: RunningAppliance, token: str, after: str | None = None
) -> tuple[int, str | None]:
    """How a request for the events is refused."""
    headers = {"authorization": f"Bearer {token}"}
    if after is not None:
        headers["last-event-id"] = after
    response = httpx.get(f"{server.base_url}/api/local/events", headers=headers, trust_env=False)
    return response.status_code, response.json()["error"]["param"]


def test_from_cold_to_warm_and_out_again(tmp_path: Path) -> None:
    commands = Inside(tmp_path)
    with appliance(tmp_path, CONFIG) as server:
        commands.out("users", "add", "alice", "--tier", "pro")
        key = commands.out("keys", "create", "--user", "alice").strip()
        token = json.loads((tmp_path / "server.json").read_text())["token"]
        watcher = Watcher(server, token)

        # Who does not wait is told at once, as Hugging Face's clients know it; loading begins.
        refused = ask(server, key, "tiny/b", **{"x-wait-for-model": "false"})
        assert refused.status_code == 503
        body = refused.json()
        assert body["estimated_time"] >= 0.5
        assert body["error"]["code"] == "model_loading"
        assert int(refused.headers["retry-after"]) >= 1
        wrong = ask(server, key, "tiny/b", **{"x-wait-for-model": "perhaps"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "X-Wait-For-Model")
        # Who waits gets the answer.
        assert ask(server, key, "tiny/b").json()["choices"][0]["message"]["content"] == "echo: hi"
        assert ask(server, key, "tiny/b", **{"x-wait-for-model": "0"}).status_code == 200

        # Another model takes its place.
        assert ask(server, key, "tiny/a").status_code == 200
        lines = {line["model"]: line for line in commands.json("models", "ps")["data"]}
        assert (lines["tiny/a"]["state"], lines["tiny/b"]["state"]) == ("warm", "cold")
        assert (lines["tiny/a"]["memory_bytes"], lines["tiny/b"]["evictions"]) == (60, 1)
        assert metric(server, "turnpike_local_evictions_total", model="tiny/b") == 1
        assert metric(server, "turnpike_local_state", model="tiny/a", state="warm") == 1
        assert metric(server, "turnpike_local_memory_bytes", model="tiny/a") == 60
        assert metric(server, "turnpike_local_load_seconds_total", model="tiny/b") >= 0.5
        assert metric(server, "turnpike_local_busy_seconds_total", model="tiny/b") > 0
        assert metric(server, "turnpike_local_memory_bytes_max") == 100

        # What can never fit says so in numbers.
        hopeless = ask(server, key, "tiny/big")
        assert hopeless.status_code == 503
        assert "needs 101 bytes" in hopeless.json()["error"]["message"]

        operate(commands)
        assert events_status(server, key) == (403, None)
        assert events_status(server, token, after="-1") == (400, "Last-Event-ID")

        begun = time.monotonic()
        assert server.stop() == 0  # an open watcher does not hold the server up
        assert time.monotonic() - begun < 10
        watcher.join()
    assert watcher.ended
    states = [(e["model"], e["state"]) for e in watcher.events if e["event"] == "state"]
    assert states[:6] == [
        ("tiny/b", "loading"), ("tiny/b", "warm"), ("tiny/b", "draining"), ("tiny/b", "cold"),
        ("tiny/a", "loading"), ("tiny/a", "warm"),
    ]  # fmt: skip
    assert [e["id"] for e in watcher.events] == list(range(1, len(watcher.events) + 1))
    progress = [e["progress"] for e in watcher.events if e["event"] == "progress"]
    assert any(0 < each < 1 for each in progress)
    # Without a server there is nothing to load into; the commands know the default model.
    (line,) = commands.json("models", "ps")["data"]
    assert line["state"] == "cold"
    assert "turnpike serve" in commands.refused("models", "load", line["model"])


def test_a_stream_outlives_the_wish_for_another_model(tmp_path: Path) -> None:
    """Through the whole gateway, with the bill: the answer is whole, and so is its price."""
    commands = Inside(tmp_path)
    with appliance(tmp_path, CONFIG) as server:
        commands.out("users", "add", "alice", "--tier", "pro")
        key = commands.out("keys", "create", "--user", "alice").strip()
        body = {
            "model": "tiny/a",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": " ".join(["word"] * 120)}],
        }
        other: list[httpx.Response] = []
        rival = threading.Thread(target=lambda: other.append(ask(server, key, "tiny/b")))
        lines: list[str] = []
        with httpx.stream(
            "POST",
            f"{server.base_url}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {key}"},
            timeout=60,
            trust_env=False,
        ) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    lines.append(line.removeprefix("data: "))
                    if len(lines) == 10:
                        rival.start()
        rival.join()
        assert lines[-1] == "[DONE]"
        assert json.loads(lines[-2])["usage"]["completion_tokens"] == 121
        assert other[0].json()["choices"][0]["message"]["content"] == "echo: hi"
        assert commands.json("usage", "--by", "model")
        commands.out("ledger", "audit")
        server.stop()
