"""Lives at a site: run in a network namespace of its own, as root, with nothing but a bundle.

``python -m tests.frozen.at_a_site ROOT TRACE COMMAND…``: gives the commands inside of the folder
ROOT, serves there, asks it as an OpenAI client with the key that the last command said, serves once
more under strace (which writes to TRACE, unless that is empty), and prints what came of it as JSON.
Commands of ``turnpike``'s, which come last, are given to the running server, as the service's user.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import openai

from tests.frozen.alone import MODEL, loopback_up

USER = "990:990"
URL = "http://127.0.0.1:8000"
_WHERE = ["--config", "/etc/turnpike/config.toml", "--data-dir", "/var/lib/turnpike"]
INSTALLED = ["/usr/local/bin/turnpike", *_WHERE]
_SHELL = 'PATH=/bin; cd /root; sudo() { "$@"; };'
_TRACED = ["strace", "-D", "-f", "-e", "trace=network"]


def give(root: str, command: str) -> str:
    """What one command says. It has to succeed."""
    chroot = ["/usr/sbin/chroot"]
    if command.startswith("turnpike "):
        words = [*chroot, f"--userspec={USER}", root, *INSTALLED, *shlex.split(command)[1:]]
    else:
        words = [*chroot, root, "/bin/sh", "-ec", _SHELL + command]
    done = subprocess.run(words, env={}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def ask(key: str) -> openai.types.chat.ChatCompletion:
    """One chat, as clients do it."""
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key=key, timeout=200, max_retries=0)
    return client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Say hello."}],
        max_tokens=8,
        extra_body={"ignore_eos": True},  # "Hello!" would be a whole answer, at times
    )


def ready() -> int:
    """What the server says of itself, as soon as it says something."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{URL}/readyz", timeout=60) as answer:
                return int(answer.status)
        except urllib.error.URLError as error:  # it is being looked at, and slow
            if not isinstance(error.reason, ConnectionRefusedError):
                return 0
            time.sleep(0.1)
    return 0


@contextmanager
def serving(root: str, *traced: str) -> Iterator[list[str]]:
    """A server from its start to its end, and what it said."""
    chroot = ["/usr/sbin/chroot", f"--userspec={USER}", root]
    with subprocess.Popen(
        [*traced, *chroot, *INSTALLED, "serve"],
        env={},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        told = [""]
        while "Ctrl-C" not in told[0]:
            line = server.stdout.readline()
            if not line:
                sys.exit(f"it ended: {told[0]}")
            told[0] += line
        try:
            yield told
        finally:
            server.send_signal(signal.SIGTERM)
            told.append(str(server.wait(60)))
            told[0] += server.stdout.read()


def main(root: str, trace: str, *commands: str) -> None:
    """See above."""
    loopback_up()
    first = [each for each in commands if not each.startswith("turnpike ")]
    said = [give(root, command) for command in first]
    with serving(root) as told:
        said += [give(root, command) for command in commands[len(first) :]]
        answer = ask(said[-1].strip())
        usage = json.loads(give(root, "turnpike usage rows --json"))
    text = answer.choices[0].message.content
    found = {"said": said, "text": text, "usage": usage, "told": told[0], "status": told[1]}
    if trace:
        # A start of its own: engines compute at a tenth of their speed when they are looked at.
        with serving(root, *_TRACED, "-o", trace) as traced:
            found["ready"] = ready()
        found["traced"] = traced[1]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
