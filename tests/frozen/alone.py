"""Asks a binary that has nothing but itself: run in a network namespace of its own, as root.

``alone.py ROOT``: starts ``/turnpike serve`` inside of the folder ROOT, asks it as an OpenAI
client, ends it, and prints what it said as JSON. ``alone.py ROOT MODEL``: with ROOT/config.toml,
and asks MODEL for a vector of ``TEXT``.
"""

import fcntl
import json
import re
import signal
import socket
import struct
import subprocess
import sys

import openai

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEXT = "The toll road is closed today."


def loopback_up() -> None:
    """A new network namespace has a loopback interface that is down, and no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack("16sh", b"lo", 0)
        (flags,) = struct.unpack("16xh", fcntl.ioctl(any_socket, _GET_FLAGS, name)[:18])
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", flags | _UP))


def main(root: str, embedder: str = "") -> None:
    """See above."""
    loopback_up()
    configured = ["--config", "/config.toml"] if embedder else []
    with subprocess.Popen(
        ["/usr/sbin/chroot", root, "/turnpike", *configured, "--data-dir", "/data", "serve"],
        env={},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        said, key = "", ""
        while "Ctrl-C" not in said:
            line = server.stdout.readline()
            if not line:
                sys.exit(f"it ended: {said}")
            said += line
            found = re.search(r"\btp_\w+", line)
            key = key or (found[0] if found else "")
        client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key=key, timeout=90)
        told = _vector(client, embedder) if embedder else _answer(client)
        server.send_signal(signal.SIGTERM)
        status = server.wait(30)
        said += server.stdout.read()
    print(json.dumps({**told, "status": status, "said": said}))


def _answer(client: openai.OpenAI) -> dict[str, object]:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Say hello."}], max_tokens=16
    )
    tokens = answer.usage.completion_tokens if answer.usage else 0
    return {"text": answer.choices[0].message.content, "tokens": tokens}


def _vector(client: openai.OpenAI, model: str) -> dict[str, object]:
    answer = client.embeddings.create(model=model, input=TEXT)
    return {"vector": answer.data[0].embedding, "tokens": answer.usage.prompt_tokens}


if __name__ == "__main__":
    main(*sys.argv[1:])
