"""``turnpike models pull, import, show, rm, prune``: the models' files on this machine.

They work beside a running server, which serves a configured model as soon as its files are here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from app.cli.client import CommandFailed
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table
from app.cli.progress import bytes_bar

if TYPE_CHECKING:
    from local_runtime.store.catalog import Manifest
    from local_runtime.store.facts import ModelFacts
    from local_runtime.store.pull import PullProgress

HOURS_DEFAULT = 24.0


class StoredModel(msgspec.Struct, frozen=True):
    """One line of ``models list --store``."""

    name: str
    format: str
    bytes: int
    source: str
    revision: str | None
    licence: str | None
    at_ms: int


class ShownModel(msgspec.Struct, frozen=True):
    """What ``models show`` prints as JSON: the manifest, and what the files say."""

    manifest: "Manifest"
    facts: "ModelFacts"


@contextmanager
def refusals_told() -> Iterator[None]:
    """What the store refuses, as a failed command."""
    from local_runtime.store.blobs import StoreError
    from local_runtime.store.names import NameRefused

    try:
        yield
    except (StoreError, NameRefused) as error:
        raise CommandFailed(f"{error}.".replace("..", ".")) from error


@click.command("pull")
@click.argument("model", metavar="hf:ORG/REPO[:QUANT][@REVISION]")
@click.option("--token", metavar="env:NAME", help='Your token: "env:NAME", or "file:PATH".')
@click.option("--no-projector", is_flag=True, help="Without the file that reads pictures.")
@json_option
@click.pass_obj
def pull_model(
    invocation: Invocation, model: str, token: str | None, no_projector: bool, as_json: bool
) -> None:
    """Bring a model here from the Hub: GGUF, or safetensors with configuration and tokenizer.

    Without QUANT it is Q4_K_M, else Q4_0, else the next best. A pull that was cut off goes on where
    it stopped, and every file's hash is checked before it counts. The token for a model that needs
    one is --token, else [local.hub] token of the configuration, else the variable HF_TOKEN.
    """
    from app.model_store import hub_settings, open_store
    from local_runtime.store.names import parse_hub
    from local_runtime.store.pull import pull

    config = invocation.config()
    with refusals_told(), bytes_bar() as bar:

        def tell(progress: "PullProgress") -> None:
            what = progress.stage if not progress.file else f"{progress.stage} {progress.file}"
            bar(what, progress.bytes_done, progress.bytes_total)

        name = parse_hub(model)
        store = open_store(config)
        try:
            manifest = pull(
                store, hub_settings(config, token), name, tell=tell, projector=not no_projector
            )
        except KeyboardInterrupt:
            click.echo("Stopped. What came is kept: the same command goes on from there.", err=True)
            raise
    _say(manifest, as_json, "is here")


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME[:VARIANT]", help="What to call it; else as the file says.")
@click.option(
    "--link",
    is_flag=True,
    help="Keep the file itself (a hard link) and no copy: it must never be changed afterwards.",
)
@click.option("--replace", is_flag=True, help="Take the place of another model of that name.")
@click.option("--fit", "fitting", is_flag=True, help="Then measure it, as `models fit` does.")
@json_option
@click.pass_obj
def import_model(
    invocation: Invocation,
    path: Path,
    name: str | None,
    link: bool,
    replace: bool,
    fitting: bool,
    as_json: bool,
) -> None:
    """Take a GGUF file, or a folder that holds a model, into the store, checked and hashed.

    The store gets a copy; on disks that can share (btrfs, XFS) it takes no room. With --link it
    takes none anywhere, where both are on one disk, but then what is written to the original later
    is written to the store's model: it would be served as it is then, and `models show --check`
    would call it damaged.
    """
    from app.model_store import open_store
    from local_runtime.store.importing import import_path

    with refusals_told(), bytes_bar() as bar:
        store = open_store(invocation.config())
        manifest = import_path(store, path, name, link=link, replace=replace, tell=bar)
    if fitting and as_json:
        raise CommandFailed(f"{manifest.name} is here; for JSON run `models fit` by itself.")
    _say(manifest, as_json, "is here")
    if fitting:
        from app.cli.models_fit import fit

        fit(invocation, str(manifest.name))


@click.command("show")
@click.argument("name", metavar="NAME[:VARIANT]")
@click.option("--check", is_flag=True, help="Read all of it, and compare every hash.")
@json_option
@click.pass_obj
def show_model(invocation: Invocation, name: str, check: bool, as_json: bool) -> None:
    """Show what a model in the store is, what it needs, and its files with their hashes."""
    from app.model_store import open_store
    from local_runtime.store.facts import facts_of
    from local_runtime.store.names import parse_store

    with refusals_told():
        store = open_store(invocation.config())
        manifest = store.get(parse_store(name))
        facts = facts_of(store, manifest)
        if check:
            for file in manifest.files:
                if store.blobs.digest_of(file.sha256) != file.sha256:
                    raise CommandFailed(
                        f"{file.name} is not what it was when it came: remove the model with"
                        f" `turnpike models rm {manifest.name}`, and bring it again."
                    )
    if as_json:
        show_json(ShownModel(manifest, facts))
        return
    for title, value in _lines(manifest, facts):
        click.echo(f"{title + ':':<16}{value}")
    click.echo()
    show_table(
        [Column("File"), Column("For"), Column("Size", number=True), Column("SHA-256")],
        [[f.name, f.role, _size(f.bytes), f.sha256] for f in manifest.files],
        empty="",
    )
    if check:
        click.echo("Every hash is right.")


@click.command("rm")
@click.argument("names", metavar="NAME[:VARIANT]…", nargs=-1, required=True)
@click.pass_obj
def remove_model(invocation: Invocation, names: tuple[str, ...]) -> None:
    """Remove models from the store; files that another model has too stay.

    A model with several variants is removed one variant at a time.
    """
    from app.model_store import open_store
    from local_runtime.store.names import parse_store

    with refusals_told():
        store = open_store(invocation.config())
        for text in names:
            name = parse_store(text)
            variants = [each.variant for each in store.variants(name.id)]
            if name.variant is None and len(variants) > 1:
                raise CommandFailed(
                    f"{name} is here as {', '.join(variants)}; say which, as {name}:{variants[0]}."
                )
            manifest, freed = store.remove(name)
            click.echo(f"Removed {manifest.name}; {_size(freed)} are free again.")


@click.command("prune")
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(min=0),
    default=HOURS_DEFAULT,
    show_default=True,
    metavar="HOURS",
    help="Only what was not touched for so long.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_obj
def prune_models(invocation: Invocation, hours: float, dry_run: bool, as_json: bool) -> None:
    """Remove what belongs to no model: files without a manifest, and parts of old downloads."""
    from app.model_store import open_store
    from local_runtime.store.prune import prune

    with refusals_told():
        store = open_store(invocation.config())
        found = prune(store, older_than_s=3600 * hours, dry_run=dry_run)
    if as_json:
        show_json(found)
        return
    for each in found:
        click.echo(f"{each.what}\t{_size(each.bytes)}\t{each.name}")
    verb = "Would free" if dry_run else "Freed"
    click.echo(f"{verb} {_size(sum(each.bytes for each in found))} in {len(found)} files.")


def stored_models(invocation: Invocation) -> list[StoredModel]:
    """What is in the store. Raises CommandFailed."""
    from app.model_store import open_store

    with refusals_told():
        store = open_store(invocation.config())
        return [
            StoredModel(
                str(each.name),
                each.format,
                each.bytes,
                each.source,
                each.revision,
                each.licence,
                each.at_ms,
            )
            for each in store.every()
        ]


def show_stored(found: list[StoredModel]) -> None:
    """The store as a table."""
    columns = ("Model", "Format", "Size", "From", "Licence", "Came")
    show_table(
        [Column(title, number=title == "Size") for title in columns],
        [
            [
                each.name,
                each.format,
                _size(each.bytes),
                each.source,
                each.licence or "-",
                moment(each.at_ms),
            ]
            for each in found
        ],
        empty="The store is empty. `turnpike models pull hf:ORG/REPO` brings a model.",
    )


def _say(manifest: "Manifest", as_json: bool, what: str) -> None:
    if as_json:
        show_json(manifest)
        return
    click.echo(f"{manifest.name} {what} ({_size(manifest.bytes)}).")
    if manifest.format == "gguf":
        click.echo(f'To serve it: source = "store:{manifest.name}" under [[local.models]].')


def _lines(manifest: "Manifest", facts: "ModelFacts") -> list[tuple[str, str]]:
    """What there is to say, one line each; nothing of what is not known."""
    found = [
        ("Model", str(manifest.name)),
        ("From", manifest.source + (f" at {manifest.revision}" if manifest.revision else "")),
        ("Requantised of", manifest.parent),
        ("Came", moment(manifest.at_ms)),
        ("Licence", manifest.licence or "not said"),
        ("Format", manifest.format),
        ("Architecture", facts.architecture),
        ("Parameters", None if facts.parameters is None else _count(facts.parameters)),
        ("Context", None if facts.context_length is None else f"{facts.context_length} tokens"),
        ("Chats", None if facts.chat_template is None else _yes(facts.chat_template)),
        ("Calls tools", None if facts.tools is None else _yes(facts.tools)),
        ("Sees pictures", _yes(facts.pictures) if manifest.format == "gguf" else None),
        ("Size", _size(manifest.bytes)),
        ("Memory", None if facts.memory_bytes is None else f"about {_size(facts.memory_bytes)}"),
    ]
    return [(title, value) for title, value in found if value]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _count(value: int) -> str:
    return f"{value / 1e9:.2f} billion" if value >= 10**9 else f"{value / 1e6:.1f} million"


def _size(count: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} B"
