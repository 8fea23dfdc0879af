"""What commands print: tables and panels on a terminal, tab-separated text or JSON elsewhere."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import rich_click as click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

NANO_PER_USD = 10**9

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Column(NamedTuple):
    """A table's column; numbers stand right."""

    title: str
    number: bool = False


def on_terminal() -> bool:
    """Whether a person reads the output as it comes."""
    return sys.stdout.isatty()


def show_json(value: Any) -> None:
    """Structs and lists of them, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def show_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """A table; ``empty`` is said instead where a person would look at a table without rows."""
    if not on_terminal():
        click.echo("\t".join(column.title.upper().replace(" ", "_") for column in columns))
        for row in rows:
            click.echo("\t".join(row))
        return
    if not rows:
        click.echo(empty)
        return
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.title, justify="right" if column.number else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def show_secret(title: str, secret: str, advice: str) -> None:
    """A secret: alone on stdout when piped; on a terminal with what to do about it."""
    if on_terminal():
        console = Console()
        console.print(Panel(Text(advice), title=Text(title), expand=False, padding=(1, 2)))
    click.echo(secret)


def show_progress(message: str) -> None:
    """Tell a waiting person why; scripts are not told."""
    if sys.stderr.isatty():
        click.echo(message, err=True)


def show_error(message: str) -> None:
    """One line on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        Text.assemble(("Error: ", "bold red"), " ".join(message.split()))
    )


def usd(nano_usd: int) -> str:
    """Exact dollars: at least two places, at most nine. No floats."""
    whole, nano = divmod(abs(nano_usd), NANO_PER_USD)
    places = f"{nano:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano_usd < 0 else ''}${whole}.{places}"


def moment(at_ms: int | None, missing: str = "-") -> str:
    """UTC time of day to the second, as ISO 8601."""
    if at_ms is None:
        return missing
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
