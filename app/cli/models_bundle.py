"""``turnpike models bundle`` and ``import-bundle``: models in one signed file, to carry."""

from pathlib import Path

import rich_click as click

from app.cli.client import CommandFailed
from app.cli.invocation import Invocation
from app.cli.models_store import refusals_told
from app.cli.output import json_option, show_json
from app.cli.progress import bytes_bar

KEY_NAME = "bundle_key.pem"
trust_key_option = click.option(
    "--trust-key",
    "trusted",
    multiple=True,
    metavar="KEY",
    help="A public key whose bundles are taken, beside the configured trusted_keys.",
)
allow_unsigned_option = click.option(
    "--allow-unsigned", is_flag=True, help="Take a bundle that nobody signed."
)


@click.command("bundle")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path), required=False)
@click.argument("names", metavar="NAME[:VARIANT]…", nargs=-1)
@click.option("--make-key", is_flag=True, help="Make the key that signs, and print its public key.")
@click.option("--key", type=click.Path(path_type=Path), help="The key to sign with.")
@click.option("--unsigned", is_flag=True, help="Without a signature.")
@click.pass_obj
def bundle_models(
    invocation: Invocation,
    path: Path | None,
    names: tuple[str, ...],
    make_key: bool,
    key: Path | None,
    unsigned: bool,
) -> None:
    """Write models of the store into FILE, signed, for a machine without a network.

    The key is `bundle_key.pem` in the data directory unless --key names another; whoever takes the
    bundle in needs its public key, which --make-key prints.
    """
    from app.model_store import open_store
    from local_runtime.store.bundle import write_bundle
    from local_runtime.store.names import parse_store
    from local_runtime.store.signing import make_key as make
    from local_runtime.store.signing import read_key

    config = invocation.config()
    key_path = key or config.data_dir() / KEY_NAME
    with refusals_told():
        if make_key:
            if path is not None:
                raise CommandFailed("--make-key makes a key and nothing else: give no FILE.")
            click.echo(make(key_path))
            click.echo(f"That is the public key of {key_path}, which stays secret.", err=True)
            return
        if path is None or not names:
            raise click.UsageError("Missing FILE, and the models to put into it.")
        if path.exists():
            raise CommandFailed(f"{path} is there already.")
        store = open_store(config)
        models = [store.get(parse_store(name)) for name in dict.fromkeys(names)]
        signing_key = None if unsigned else read_key(key_path)
        with bytes_bar() as bar:
            index = write_bundle(store, path.absolute(), models, signing_key, bar)
    count = len(index.models)
    click.echo(f"Wrote {count} model{'s' * (count != 1)} to {path}.")


@click.command("import-bundle")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@trust_key_option
@allow_unsigned_option
@json_option
@click.pass_obj
def import_bundle(
    invocation: Invocation,
    path: Path,
    trusted: tuple[str, ...],
    allow_unsigned: bool,
    as_json: bool,
) -> None:
    """Take in the models of a bundle: signature first, then every file's hash and header."""
    from app.model_store import open_store, trusted_keys
    from local_runtime.store.bundle import read_bundle
    from local_runtime.store.signing import PUBLIC_KEY

    config = invocation.config()
    for each in trusted:
        if not PUBLIC_KEY.fullmatch(each):
            raise CommandFailed(f"--trust-key: {each[:80]!r} is not a public key (64 hex digits).")
    with refusals_told(), bytes_bar() as bar:
        store = open_store(config)
        keys = [*trusted_keys(config), *trusted]
        models = read_bundle(store, path, keys, allow_unsigned=allow_unsigned, tell=bar)
    if as_json:
        show_json(models)
        return
    for manifest in models:
        click.echo(f"{manifest.name} is here.")
