"""``turnpike bundle``: create, show, apply. What a site without a network needs, in one file."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from app.cli.bundle_apply import apply_bundle
from app.cli.bundle_create import content_lines, create_bundle
from app.cli.invocation import Invocation
from app.cli.models_store import refusals_told
from app.cli.output import json_option, moment, show_json
from app.cli.progress import bytes_bar

if TYPE_CHECKING:
    from app.site_bundle.reading import SiteBundle


@click.group("bundle")
def bundle() -> None:
    """The program, models and prices in one signed file, for a site without a network."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What ``show`` tells as JSON. ``trusted``: by the configuration in force here."""

    file: str
    sha256: str
    signed_by: str | None
    trusted: bool
    made_at: str
    program: object
    parts: object
    models: object
    prices: object


@bundle.command("show")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def show_bundle(invocation: Invocation, path: Path, as_json: bool) -> None:
    """Read FILE from its first byte to its last, and say what is in it and who signed it.

    Nothing is installed, and nobody has to be trusted for it. A file that was changed or damaged
    is refused.
    """
    from app.model_store import trusted_keys
    from app.site_bundle.reading import opened

    with (
        refusals_told(),
        bytes_bar() as bar,
        opened(path, None, allow_unsigned=True, tell=bar) as (found),
    ):
        trusted = found.signed_by in trusted_keys(invocation.config())
        if as_json:
            show_json(_as_data(path, found, trusted=trusted))
            return
    for line in _lines(found):
        click.echo(line)
    click.echo(f"SHA-256     {found.file_sha256}")
    if found.signed_by is None:
        click.echo("Nobody signed it.")
    else:
        note = "" if trusted else ", which is not among the trusted_keys here"
        click.echo(f"Signed with the key {found.signed_by}{note}.")


def _as_data(path: Path, found: "SiteBundle", *, trusted: bool) -> Shown:
    return Shown(
        file=str(path),
        sha256=found.file_sha256,
        signed_by=found.signed_by,
        trusted=trusted,
        made_at=moment(found.index.at_ms),
        program=found.index.program,
        parts=found.index.parts,
        models=found.index.models,
        prices=found.carried,
    )


def _lines(found: "SiteBundle") -> list[str]:
    lines = [f"{moment(found.index.at_ms):<11} (the newest thing in it)"]
    lines += content_lines(found.index, len(found.carried.prices))
    for provider, prices in sorted(found.carried.prices.items()):
        lines += [f"            {model} at {provider}" for model in sorted(prices)]
    served = ", ".join(str(each["id"]) for each in found.carried.models)
    return [*lines, f"serves      {served or 'what its configuration says'}"]


bundle.add_command(create_bundle)
bundle.add_command(apply_bundle)
