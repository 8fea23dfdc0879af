"""What ``turnpike serve`` prints: where it listens, the first key, and two snippets that work."""

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from app.config import Config
from app.errors import ConfigError
from app.version import VERSION
from local_runtime.runtime import LocalRuntime

_SETTLED = {"warm", "failed", "absent"}
_LOOK_EVERY_S = 0.2


def print_banner(
    base_url: str,
    first_key: str | None,
    models: Sequence[str],
    data_dir: Path,
    *,
    chat_model: str | None,
    absent: Sequence[str] = (),
    in_journal: bool = False,
) -> None:
    """Print it to stdout; the snippets have no frame or indent, so that they can be pasted.

    ``chat_model`` is the one that they ask, ``absent`` are models that wait for their files;
    ``in_journal``: nobody sits in front of it, and it is kept.
    """
    console = Console(highlight=False, soft_wrap=True)
    out = console.print
    new_key = _new_key_command(data_dir)
    out(f"[bold]Turnpike {VERSION}[/bold] serves [bold]{base_url}/v1[/bold]")
    out(f"data directory  {escape(str(data_dir))}")
    for model in models:
        out(f"model           {model}")
    for model in absent:
        out(f"model           {model}: its files are not here")
    if not models and not absent:
        none = "none: add [[providers]] or [[local.models]] to the configuration"
        out("model           " + escape(none))
    if first_key is not None:
        out(f"API key         [bold]{first_key}[/bold]")
        out("                shown only now: keep it; a new one: " + escape(new_key))
    elif in_journal:
        out("API key         make one: " + escape(new_key))
        sys.stdout.flush()
        return
    else:
        out("API key         as shown at the first start; a new one: " + escape(new_key))
    if chat_model is not None:
        out("\n[bold]Try it[/bold], in another terminal:\n")
        print(curl_snippet(base_url, first_key, chat_model))
        out("\n[bold]or in Python[/bold] (pip install openai):\n")
        print(python_snippet(base_url, first_key, chat_model))
    out("\nCtrl-C stops it once the running calls have ended.")
    sys.stdout.flush()


def curl_snippet(base_url: str, key: str | None, model: str) -> str:
    """A shell command that asks the model something."""
    bearer = key or "$TURNPIKE_API_KEY"
    body = (
        f'{{"model": "{model}", "max_tokens": {_TOKENS}, '
        f'"messages": [{{"role": "user", "content": "{_QUESTION}"}}]}}'
    )
    return (
        f"curl {base_url}/v1/chat/completions \\\n"
        f'  -H "Authorization: Bearer {bearer}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{body}'"
    )


def python_snippet(base_url: str, key: str | None, model: str) -> str:
    """A Python program that asks the model something."""
    secret = f'"{key}"' if key else 'os.environ["TURNPIKE_API_KEY"]'
    imports = "" if key else "import os\n\n"
    return (
        f"{imports}from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}/v1", api_key={secret})\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{model}",\n'
        f'    messages=[{{"role": "user", "content": "{_QUESTION}"}}],\n'
        f"    max_tokens={_TOKENS},\n"
        ")\n"
        "print(answer.choices[0].message.content)"
    )


_QUESTION = "Why is the sky blue?"
_TOKENS = 100


def _new_key_command(data_dir: Path) -> str:
    """The command that works on this very directory, from where the server was started."""
    here = Path(sys.argv[0])
    program = "python -m app"
    if shutil.which("turnpike"):
        program = "turnpike"
    elif here.name == "turnpike" or getattr(sys, "frozen", False):
        program = shlex.quote(os.path.relpath(os.environ.get("TURNPIKE_FILE", here)))
    where = "" if _is_default(data_dir) else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"{program}{where} keys create --user owner"


def _is_default(data_dir: Path) -> bool:
    try:
        return data_dir == Config().data_dir()
    except ConfigError:
        return False


async def watch_loading(runtime: LocalRuntime) -> None:
    """Show how far local models are with loading, until each is warm or has failed."""
    console = Console(highlight=False, soft_wrap=True)
    with console.status("") as line:
        told: set[str] = set()
        while True:
            loading = []
            for status in runtime.status():
                if not status.preload:
                    continue
                no_room = status.state == "cold" and not status.waits_for_room
                if status.state not in _SETTLED and not no_room:
                    loading.append(f"{status.model} {status.state} {status.progress:.0%}")
                elif status.model not in told:
                    told.add(status.model)
                    why = f": {status.error}" if status.error else ""
                    console.print(escape(f"{status.model} is {status.state}{why}"))
            if not loading:
                return
            line.update("loading " + ", ".join(loading))
            await asyncio.sleep(_LOOK_EVERY_S)
