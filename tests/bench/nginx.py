"""A static upstream that answers like a provider, and nginx's ``proxy_pass`` in front of it."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.bench.machine import free_port

CHUNKS = 100
USAGE = {"prompt_tokens": 64, "completion_tokens": 100, "total_tokens": 164}

_COMMON = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  open_file_cache max=16;
  tcp_nopush on;
  sendfile on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{http}
}}
"""

# nginx answers no POST with a file; ``error_page`` makes the file of a refusal.
_STATIC = """
  server {{
    listen 127.0.0.1:{port};
    root {folder};
    location = /whole/v1/chat/completions {{ error_page 405 =200 /whole.json; return 405; }}
    location = /stream/v1/chat/completions {{ error_page 405 =200 /stream.txt; return 405; }}
    location = /whole.json {{ types {{}} default_type application/json; }}
    location = /stream.txt {{ types {{}} default_type text/event-stream; }}
  }}
"""

_PROXY = """
  upstream provider {{
    server 127.0.0.1:{upstream};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
"""


def whole_answer() -> bytes:
    """A chat completion of 600 bytes."""
    message = {"role": "assistant", "content": ""}
    body = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "system_fingerprint": "fp_0123456789",
    }
    message["content"] = "x" * (600 - len(json.dumps(body)))
    return json.dumps(body).encode()


def streamed_answer() -> bytes:
    """The same in 100 chunks, a chunk with usage, and the end mark."""
    head = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "m",
    }
    chunks = []
    for n in range(CHUNKS):
        delta = {"role": "assistant", "content": "first"} if n == 0 else {"content": " word"}
        finish = "stop" if n == CHUNKS - 1 else None
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunks.append({**head, "choices": [choice]})
    chunks.append({**head, "choices": [], "usage": USAGE})
    events = [f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n" for chunk in chunks]
    return "".join([*events, "data: [DONE]\n\n"]).encode()


@contextmanager
def static_upstream(nginx: str, folder: Path) -> Iterator[int]:
    """Serve both answers under ``/whole/v1`` and ``/stream/v1``; the port."""
    folder.mkdir()
    (folder / "whole.json").write_bytes(whole_answer())
    (folder / "stream.txt").write_bytes(streamed_answer())
    port = free_port()
    with _running(nginx, folder, _STATIC.format(folder=folder, port=port), port):
        yield port


@contextmanager
def proxy(nginx: str, folder: Path, upstream: int) -> Iterator[int]:
    """``proxy_pass`` with kept connections in front of the port ``upstream``; its own port."""
    folder.mkdir()
    port = free_port()
    with _running(nginx, folder, _PROXY.format(upstream=upstream, port=port), port):
        yield port


@contextmanager
def _running(nginx: str, folder: Path, http: str, port: int) -> Iterator[None]:
    config = folder / "nginx.conf"
    config.write_text(_COMMON.format(folder=folder, http=http))
    with (folder / "nginx.log").open("w") as log:
        process = subprocess.Popen(
            [nginx, "-p", str(folder), "-c", str(config), "-e", "stderr"], stdout=log, stderr=log
        )
    try:
        _wait_for(process, port, folder / "nginx.log")
        yield
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nginx did not start: {log.read_text()}")
