"""Promise: with nothing configured, it serves a real model on this machine to an OpenAI client."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIStatusError, APITimeoutError, OpenAI

from tests.appliance import cli

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ASKED: Any = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "max_tokens": 40,
    "seed": 7,
}
FREE_PORT_CONFIG = "[server]\nport = 0\n"


@dataclass
class FirstStart:
    """A server that was started for the first time, and what it printed."""

    printed: str
    data_dir: Path
    config: Path
    process: subprocess.Popen[str]
    clients: list[OpenAI] = field(default_factory=list)

    @property
    def url(self) -> str:
        found = re.search(r"serves (http://127\.0\.0\.1:\d+)/v1", self.printed)
        assert found, self.printed
        return found[1]

    @property
    def key(self) -> str:
        found = re.search(r"API key +(tp_\S+)", self.printed)
        assert found, self.printed
        return found[1]

    def client(self, **more: Any) -> OpenAI:
        """One of OpenAI's, with the key that was printed; closed with the server."""
        made = OpenAI(base_url=f"{self.url}/v1", **{"api_key": self.key, **more})
        self.clients.append(made)
        return made

    def cli(self, *args: str) -> str:
        return cli(self.data_dir, *args, config=self.config)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstStart]:
    folder = tmp_path_factory.mktemp("first-start")
    config = folder / "config.toml"
    config.write_text(FREE_PORT_CONFIG)
    output = folder / "stdout.txt"
    with output.open("w") as stdout:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "app", "--config", str(config)),
                *("--data-dir", str(folder / "data"), "serve"),
            ],
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
        )
    give_up = time.monotonic() + 60
    while "is warm" not in output.read_text():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < give_up, output.read_text()
        time.sleep(0.05)
    started = FirstStart(output.read_text(), folder / "data", config, process)
    yield started
    for client in started.clients:
        client.close()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_python_snippet_answers_in_english(started: FirstStart) -> None:
    snippet = started.printed[started.printed.index("from openai import OpenAI") :]
    snippet = snippet[: snippet.index("message.content)") + len("message.content)")]
    done = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\b(the|is|of)\b", done.stdout)
    assert re.search("sky|blue|light", done.stdout, re.IGNORECASE)


def test_the_curl_snippet_answers(started: FirstStart) -> None:
    snippet = started.printed[started.printed.index("curl http") :]
    snippet = snippet[: snippet.index("}'") + 2]
    done = subprocess.run(
        ["bash", "-c", f"{snippet} -sS"], capture_output=True, text=True, timeout=120, check=False
    )
    answer = json.loads(done.stdout)
    assert answer["object"] == "chat.completion"
    assert answer["usage"]["total_tokens"] == (
        answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    )


def test_a_stream_ends_with_its_usage_and_is_the_plain_answer_in_pieces(
    started: FirstStart,
) -> None:
    client = started.client()
    stream = client.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    plain = client.chat.completions.create(**ASKED)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    assert re.search(r"\b(the|is|of)\b", text)
    reason = [c.choices[0].finish_reason for c in chunks if c.choices][-1]
    assert reason == plain.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert plain.usage is not None
    assert 0 < chunks[-1].usage.completion_tokens == plain.usage.completion_tokens <= 40
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_call_stands_in_the_usage_with_its_cost(started: FirstStart) -> None:
    client = started.client()
    client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=5
    )
    rows = json.loads(started.cli("usage", "--by", "model", "--json"))
    (row,) = [row for row in rows if row["group"] == MODEL]
    assert row["calls"] >= 1
    # $0.00001 a second of compute is 10,000 nano-USD, one ceil a call.
    exact = row["compute_ns"] * 10_000 / 10**9
    assert exact <= row["cost_nano_usd"] <= exact + row["calls"]
    assert row["cost_nano_usd"] > 0


def test_an_answer_that_nobody_waits_for_is_not_generated_to_its_end(started: FirstStart) -> None:
    client = started.client(max_retries=0, timeout=2)
    with pytest.raises(APITimeoutError):
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Count"}],
            extra_body={"ignore_eos": True},
        )
    give_up = time.monotonic() + 20
    while (
        "turnpike_calls_running 0.0"
        not in httpx.get(f"{started.url}/metrics", trust_env=False).text
    ):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_the_command_for_a_new_key_is_for_this_directory(started: FirstStart) -> None:
    shown = re.search(r"a new one: \S+(?: -m app)? (.*)", started.printed)
    assert shown
    command = [sys.executable, "-m", "app", *shlex.split(shown[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    client = started.client(api_key=done.stdout.strip())
    assert [model.id for model in client.models.list()] == [MODEL]


def test_models_are_listed_and_described(started: FirstStart) -> None:
    client = started.client()
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(APIStatusError) as caught:
        client.models.retrieve("acme/none")
    assert caught.value.status_code == 404


def test_what_the_model_cannot_do_is_refused_by_name(started: FirstStart) -> None:
    client = started.client()
    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi"}],
            reasoning_effort="high",
        )
    assert caught.value.status_code == 400
    assert caught.value.param == "reasoning_effort"
    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 20_000}]
        )
    assert caught.value.status_code == 400
    assert caught.value.code == "context_length_exceeded"


def test_health_and_metrics(started: FirstStart) -> None:
    assert httpx.get(f"{started.url}/healthz", trust_env=False).json() == {"status": "ok"}
    ready = httpx.get(f"{started.url}/readyz", trust_env=False).json()
    assert ready["local_models"] == {MODEL: "warm"}
    client = started.client()
    client.chat.completions.create(**ASKED)
    metrics = httpx.get(f"{started.url}/metrics", trust_env=False).text
    assert "turnpike_calls_total" in metrics
    assert "turnpike_holds_open 0.0" in metrics


def test_users_and_keys_are_seen_by_the_running_server_at_once(started: FirstStart) -> None:
    started.cli("users", "add", "ann", "--tier", "free")
    key = started.cli("keys", "create", "--user", "ann").strip()
    assert re.fullmatch(r"tp_\w+", key)
    client = started.client(api_key=key, max_retries=0)
    assert [model.id for model in client.models.list()] == [MODEL]
    (row,) = [
        k for k in json.loads(started.cli("keys", "list", "--json")) if k["user_name"] == "ann"
    ]
    started.cli("keys", "revoke", row["id"])
    with pytest.raises(APIStatusError) as caught:
        client.models.list()
    assert caught.value.status_code == 401


def test_a_killed_engine_is_replaced(started: FirstStart) -> None:
    client = started.client(max_retries=0)
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Write a long story about a river."}],
        max_tokens=400,
        stream=True,
    )
    for at, _ in enumerate(stream):
        if at == 5:
            break
    for child in children_of(started.process.pid):
        os.kill(child, signal.SIGKILL)
    with pytest.raises(Exception, match=r"(?i)engine|stopped"):
        for _ in stream:
            pass
    again = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=5
    )
    assert again.usage is not None
    metrics = httpx.get(f"{started.url}/metrics", trust_env=False).text
    # What was delivered before the crash is settled, not lost.
    assert f'turnpike_calls_total{{model="{MODEL}",outcome="failed_partial"' in metrics
    assert "turnpike_holds_open 0.0" in metrics


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [
        int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()
    ]
