"""``turnpike version``."""

import rich_click as click

from app.cli.output import json_option, show_json
from app.version import VERSION


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version; with --json those of everything that this program stands on.

    Nothing is loaded for it, no engine and no library of llama.cpp.
    """
    if not as_json:
        click.echo(f"turnpike {VERSION}")
        return
    from app.installed import versions

    show_json(versions())
