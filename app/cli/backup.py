"""``turnpike backup`` and ``turnpike restore``."""

from pathlib import Path

import rich_click as click

from app.cli.invocation import Invocation
from app.cli.output import json_option, moment, show_json
from app.cli.progress import progress_bar
from app.clock import SystemClock


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite PATH if it exists.")
@json_option
@click.pass_obj
def backup(invocation: Invocation, path: Path, force: bool, as_json: bool) -> None:
    """Write a backup of everything to the file PATH, beside a running server or without one.

    It is one snapshot, and done only when it was read back and everything in it adds up. Users'
    names and the digests of their keys are in it; keep it as private as the data directory. The
    configuration file is not.
    """
    from app.ledger.audit import audit_file
    from app.storage.backup import make_backup

    with progress_bar() as progress:
        manifest = make_backup(
            invocation.config().data_dir(),
            path.absolute(),
            prove=audit_file,
            now_ms=SystemClock().now_ms(),
            force=force,
            progress=progress,
        )
    if as_json:
        show_json(manifest)
        return
    size = sum(member.bytes for member in manifest.members)
    click.echo(
        f"Backed up {manifest.calls} calls and {manifest.entries} entries ({size >> 20} MiB) to"
        f" {path}, verified."
    )


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def restore(invocation: Invocation, path: Path, as_json: bool) -> None:
    """Put the backup PATH in the place of the present database, with no server running.

    It is verified first. What was there before is put aside in a folder of the data directory.
    """
    from app.ledger.audit import audit_file
    from app.storage.restore import restore_backup

    data_dir = invocation.config().data_dir()
    with progress_bar() as progress:
        restored = restore_backup(
            path.absolute(),
            data_dir,
            prove=audit_file,
            now_ms=SystemClock().now_ms(),
            progress=progress,
        )
    if as_json:
        show_json(restored)
        return
    manifest = restored.manifest
    click.echo(
        f"Restored {manifest.calls} calls and {manifest.entries} entries into {data_dir}, as they"
        f" were at {moment(manifest.made_at_ms)}."
    )
    if restored.put_aside is not None:
        click.echo(f"The database before it lies in {restored.put_aside}; nothing deletes it.")
    click.echo(
        "Next: turnpike serve. Calls that ran when the backup was made end at no charge, or as"
        " their provider says."
    )
