"""``turnpike bundle create``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from app.cli.client import CommandFailed
from app.cli.invocation import Invocation
from app.cli.models_bundle import KEY_NAME
from app.cli.models_store import refusals_told
from app.cli.output import json_option, show_json
from app.cli.progress import bytes_bar

if TYPE_CHECKING:
    from app.site_bundle.create import Created
    from app.site_bundle.index import SiteIndex


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What ``create`` tells as JSON; ``public_key`` is None where nobody signed."""

    file: str
    bytes: int
    sha256: str
    public_key: str | None
    content: "SiteIndex"
    left_out: list[str]


@click.command("create")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--model", "names", multiple=True, metavar="NAME[:VARIANT]", help="A model of the store."
)
@click.option("--all-models", is_flag=True, help="Every model of the store.")
@click.option(
    "--program",
    type=click.Path(path_type=Path),
    help="The program: one file, its .tar.gz, or a folder; else the one that runs.",
)
@click.option("--key", type=click.Path(path_type=Path), help="The key to sign with.")
@click.option("--unsigned", is_flag=True, help="Without a signature.")
@json_option
@click.pass_obj
def create_bundle(
    invocation: Invocation,
    path: Path,
    names: tuple[str, ...],
    all_models: bool,
    program: Path | None,
    key: Path | None,
    unsigned: bool,
    as_json: bool,
) -> None:
    """Write FILE: the program, models, the price book and the documents, signed.

    The prices are those of the configuration in force, and so is how its models are served. The
    key is `bundle_key.pem` in the data directory unless --key names another; `models bundle
    --make-key` makes it. The same inputs give the same file, byte for byte.
    """
    from app.model_store import open_store
    from app.site_bundle.create import create
    from app.site_bundle.program import own_program
    from local_runtime.store.names import parse_store
    from local_runtime.store.signing import public_key, read_key

    config = invocation.config()
    if names and all_models:
        raise click.UsageError("Give --model or --all-models, not both.")
    if not path.absolute().parent.is_dir():
        raise CommandFailed(f"There is no folder {path.absolute().parent}.")
    if program is not None and not program.exists():
        raise CommandFailed(f"There is no program {program}: `make binary` makes one in dist/.")
    with refusals_told(), bytes_bar() as bar:
        signing_key = None if unsigned else read_key(key or config.data_dir() / KEY_NAME)
        store = open_store(config)
        models = store.every() if all_models else []
        models += [store.get(parse_store(name)) for name in dict.fromkeys(names)]
        models = list({each.name: each for each in models}.values())
        made = create(
            path.absolute(),
            config,
            invocation.config_file,
            store,
            models,
            program or own_program(),
            signing_key,
            bar,
        )
    public = None if signing_key is None else public_key(signing_key)
    if as_json:
        show_json(
            Written(
                file=str(path),
                bytes=made.bytes,
                sha256=made.sha256,
                public_key=public,
                content=made.index,
                left_out=made.left_out,
            )
        )
        return
    _say(path, made, public, len(config.providers))


def _say(path: Path, made: "Created", public: str | None, providers: int) -> None:
    click.echo(f"Wrote {path} ({size(made.bytes)}):")
    for line in content_lines(made.index, providers):
        click.echo(f"  {line}")
    for each in made.left_out:
        click.echo(f"  left out: {each}")
    name = shlex.quote(path.name)
    trust = "--allow-unsigned" if public is None else f"--trust-key {public}"
    click.echo()
    click.echo(f"SHA-256     {made.sha256}")
    click.echo(f"public key  {public or 'none: nobody signed it'}")
    click.echo()
    click.echo("Carry the file; take the sum and the key there by another way. At the site:")
    click.echo()
    click.echo(f"  echo '{made.sha256}  {path.name}' | sha256sum -c")
    first = made.index.program.part
    if made.index.program.form == "file":
        click.echo(f"  tar xf {name} {first}")
        run = f"./{first}"
    else:
        click.echo(f"  tar xf {name} {first}")
        click.echo(f"  tar xzf {first}")
        run = f"./turnpike-{made.index.program.version}/turnpike"
    click.echo(f"  sudo {run} bundle apply {name} {trust}")


def content_lines(index: "SiteIndex", providers: int) -> list[str]:
    """What is in a bundle, one thing a line."""
    program = index.program
    part = index.part(program.part)
    glibc = f", glibc {program.glibc_min} or newer" if program.glibc_min else ""
    where = f"{program.system} {program.machine}{glibc}"
    lines = [
        f"program     turnpike {program.version}, {program.edition} edition, for {where}"
        f" ({size(part.bytes)})"
    ]
    lines += [f"model       {each.name} ({size(each.bytes)})" for each in index.models]
    lines.append(
        f"prices      this machine's time, and the models of {providers}"
        f" provider{'s' * (providers != 1)}"
    )
    names = [each.name for each in index.parts if each.name not in {part.name, "carried.json"}]
    lines.append(f"documents   {', '.join(names)}")
    return lines


def size(count: int) -> str:
    """In the unit that suits it."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} B"
