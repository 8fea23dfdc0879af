"""``turnpike models ps``, ``load`` and ``unload``: what the models of this machine do."""

import asyncio

import rich_click as click

from app.api.admin.local_wire import LocalModelLine, LocalModelList, NamedModel
from app.cli.client import AdminClient, CommandFailed, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, on_terminal, show_json, show_table
from app.cli.progress import Progress, progress_bar

_LOOK_EVERY_S = 0.2
_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


@click.command("ps")
@json_option
@click.pass_obj
def show_processes(invocation: Invocation, as_json: bool) -> None:
    """Show the models of this machine: state, memory, calls, and when they were last used."""

    async def work(client: AdminClient) -> LocalModelList:
        return await _every(client)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    columns = [
        Column("Model"),
        Column("State"),
        Column("Memory", number=True),
        Column("Running", number=True),
        Column("Waiting", number=True),
        Column("Idle", number=True),
        Column("Note"),
    ]
    rows = [
        [
            line.model,
            _state(line),
            size(line.memory_bytes) if line.memory_bytes else "-",
            str(line.calls_running),
            str(line.calls_waiting),
            "-" if line.idle_s is None else duration(line.idle_s),
            _note(line),
        ]
        for line in found.data
    ]
    show_table(columns, rows, empty="No local models are configured.")
    if on_terminal() and rows:
        click.echo(f"{size(found.memory_bytes)} of {size(found.memory_bytes_max)} are held.")


@click.command("load")
@click.argument("model")
@click.option("--no-wait", is_flag=True, help="Do not wait until it answers.")
@click.pass_obj
def load_model(invocation: Invocation, model: str, no_wait: bool) -> None:
    """Load MODEL into memory; also after it has failed."""

    async def work(client: AdminClient) -> LocalModelLine:
        line = await _tell(client, "load", model)
        if no_wait:
            return line
        with progress_bar() as show:
            while line.state != "warm":
                _show(show, line)
                if line.state == "failed" or (line.state == "cold" and not line.waits_for_room):
                    why = line.error or "it was unloaded"
                    raise CommandFailed(f"{model} was not loaded: {why}")
                await asyncio.sleep(_LOOK_EVERY_S)
                line = await _one(client, model)
        return line

    line = ask(invocation, work)
    held = f", {size(line.memory_bytes)}" if line.memory_bytes else ""
    click.echo(f"{model} is {line.state}{held}")


@click.command("unload")
@click.argument("model")
@click.option("--no-wait", is_flag=True, help="Do not wait until its memory is free.")
@click.pass_obj
def unload_model(invocation: Invocation, model: str, no_wait: bool) -> None:
    """Free the memory of MODEL, once the calls that run on it have ended."""

    async def work(client: AdminClient) -> LocalModelLine:
        line = await _tell(client, "unload", model)
        with progress_bar() as show:
            while line.state == "draining" and not no_wait:
                show(f"{model} has {line.calls_running} calls to end", 0, 0)
                await asyncio.sleep(_LOOK_EVERY_S)
                line = await _one(client, model)
        return line

    line = ask(invocation, work)
    click.echo(f"{model} is {line.state}")


async def _tell(client: AdminClient, what: str, model: str) -> LocalModelLine:
    path = f"/api/local/models/{what}"
    return await client.send("POST", path, LocalModelLine, body=NamedModel(model))


async def _every(client: AdminClient) -> LocalModelList:
    return await client.send("GET", "/api/local/models", LocalModelList)


async def _one(client: AdminClient, model: str) -> LocalModelLine:
    for line in (await _every(client)).data:
        if line.model == model:
            return line
    raise CommandFailed(f"{model} is not served any more.")


def _show(show: Progress, line: LocalModelLine) -> None:
    what = "waits for memory" if line.waits_for_room else line.state
    show(f"{line.model} {what}", round(line.progress * 100), 100)


def _state(line: LocalModelLine) -> str:
    if line.waits_for_room:
        return "cold, waits"
    return f"{line.state} {line.progress:.0%}" if line.state == "loading" else line.state


def _note(line: LocalModelLine) -> str:
    if line.error:
        return line.error
    words = ["kept"] if line.keep else []
    if line.crashes:
        words.append(f"{line.crashes} crashes")
    if line.out_of_memory:
        words.append(f"{line.out_of_memory} times out of memory")
    return ", ".join(words) or "-"


def size(count: int) -> str:
    """Bytes, in the largest unit of which there is one."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """To two significant parts: 45s, 3m20s, 2h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
