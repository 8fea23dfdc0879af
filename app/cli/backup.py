"""``turnpike backup`` and ``turnpike restore``."""

from pathlib import Path

import rich_click as click

from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table
from app.cli.progress import progress_bar
from app.clock import SystemClock
from app.config import Config
from app.storage.backup_folder import BackupFolder, Kept, identity_of
from app.storage.migrate import DatabaseRefused

_PLACES = ("server", "data_dir"), ("backups", "folder")


@click.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--force", is_flag=True, help="Overwrite PATH if it exists.")
@click.option("--list", "as_list", is_flag=True, help="Show the backups in their folder instead.")
@json_option
@click.pass_obj
def backup(
    invocation: Invocation, path: Path | None, force: bool, as_list: bool, as_json: bool
) -> None:
    """Write a backup of everything to the file PATH, beside a running server or without one.

    It is one snapshot, and done only when it was read back and everything in it adds up. Users'
    names and the digests of their keys are in it; keep it as private as the data directory. The
    configuration file is not, but what a bundle carried is. Without PATH it goes where the
    scheduled ones go: into `folder` under [backups], or else the folder backups in the data
    directory.
    """
    from app.ledger.audit import audit_file
    from app.storage.backup import make_backup

    config = invocation.config_for(*_PLACES)
    if as_list:
        if path is not None or force:
            raise click.UsageError("--list takes neither PATH nor --force.")
        _show_list(config, as_json)
        return
    now_ms = SystemClock().now_ms()
    target = path.absolute() if path is not None else _in_folder(config, now_ms)
    with progress_bar() as progress:
        manifest = make_backup(
            config.data_dir(),
            target,
            prove=audit_file,
            now_ms=now_ms,
            force=force,
            progress=progress,
        )
    if as_json:
        show_json(manifest)
        return
    size = sum(member.bytes for member in manifest.members)
    click.echo(
        f"Backed up {manifest.calls} calls and {manifest.entries} entries ({size >> 20} MiB) to"
        f" {path or target}, verified."
    )


def _in_folder(config: Config, now_ms: int) -> Path:
    folder = BackupFolder(config.backups_folder(), identity_of(config.data_dir()))
    folder.make()
    return folder.target(now_ms)


def _show_list(config: Config, as_json: bool) -> None:
    try:
        identity = identity_of(config.data_dir())
    except DatabaseRefused:
        identity = ""  # the very time to look for a backup: nothing in the folder is one's own
    kept = BackupFolder(config.backups_folder(), identity).kept()
    if as_json:
        show_json(kept)
        return
    now_ms = SystemClock().now_ms()
    columns = [
        *(Column(title) for title in ("Made", "Kind", "File")),
        Column("Age", number=True),
        Column("MiB", number=True),
    ]
    show_table(
        columns,
        [_cells(each, now_ms) for each in kept],
        empty=f"No backups in {config.backups_folder()}.",
    )


def _cells(kept: Kept, now_ms: int) -> list[str]:
    hours = max(0, now_ms - kept.made_at_ms) // 3_600_000
    age = f"{hours} h" if hours < 72 else f"{hours // 24} d"
    kind = kept.kind if kept.own or kept.kind == "by hand" else f"{kept.kind}, of another database"
    return [moment(kept.made_at_ms), kind, kept.path, age, f"{kept.bytes / (1 << 20):.1f}"]


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def restore(invocation: Invocation, path: Path, as_json: bool) -> None:
    """Put the backup PATH in the place of the present database, with no server running.

    It is verified first. What was there before is put aside in a folder of the data directory.
    Prices and models that a bundle carried come back only where none are in force.
    `turnpike backup --list` shows which there are.
    """
    from app.ledger.audit import audit_file
    from app.storage.restore import restore_backup

    data_dir = invocation.config_for(*_PLACES).data_dir()
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
    if restored.carried:
        click.echo(
            "The prices and models that a bundle had carried are in force again, as of then. Models"
            " themselves are in no backup: apply the bundle where they are missing."
        )
    click.echo(
        "Next: turnpike serve. Calls that ran when the backup was made end at no charge, or as"
        " their provider says."
    )
