"""``turnpike bundle apply``."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from app.cli.client import CommandFailed
from app.cli.invocation import Invocation
from app.cli.models_bundle import allow_unsigned_option, trust_key_option
from app.cli.models_store import refusals_told
from app.cli.output import json_option, show_json
from app.cli.progress import bytes_bar
from app.config_carried import CARRIED_FILE

if TYPE_CHECKING:
    from app.site_bundle.apply import Plan
    from app.site_bundle.place import Place


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What ``apply`` tells as JSON. ``changed`` is False where everything was there already;
    ``next`` is what is left to do, in words.
    """

    file: str
    signed_by: str | None
    dry_run: bool
    changed: bool
    plan: "Plan"
    next: list[str]


class Asked(msgspec.Struct, frozen=True):
    """The options."""

    trusted: tuple[str, ...]
    allow_unsigned: bool
    allow_older: bool
    models_only: bool
    home: bool
    prefix: str
    root: Path | None
    dry_run: bool


@click.command("apply")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@trust_key_option
@allow_unsigned_option
@click.option("--allow-older", is_flag=True, help="Take one that is older than what is here.")
@click.option("--models-only", is_flag=True, help="Models and prices, not the program.")
@click.option("--home", is_flag=True, help="Into the folders of whoever calls, without a service.")
@click.option("--prefix", metavar="DIR", default="/usr/local", help="As `install` has it.")
@click.option("--root", metavar="DIR", type=click.Path(path_type=Path), help="As `install` has it.")
@click.option("--dry-run", is_flag=True, help="Check everything, and only say what would be done.")
@json_option
@click.pass_obj
def apply_bundle(invocation: Invocation, /, path: Path, as_json: bool, **asked: Any) -> None:
    """Check all of FILE, then install the program, take in the models, and put the prices in force.

    As root, the program becomes the system's service, as `install` in it does that; else, and with
    --home, it goes into ~/.local. Nothing is changed before every byte was found to be as signed.
    Where it was broken off, the same command goes on; where all is here, it changes nothing.
    """
    from app.model_store import trusted_keys
    from app.site_bundle.apply import carry_out, plan
    from app.site_bundle.reading import opened

    wanted = Asked(**asked)
    place = _place(invocation, wanted)
    keys = [*trusted_keys(place.config), *_keys(wanted.trusted)]
    with (
        refusals_told(),
        bytes_bar() as bar,
        opened(path, keys, allow_unsigned=wanted.allow_unsigned, tell=bar) as found,
    ):
        todo, terms = plan(
            found, place, models_only=wanted.models_only, allow_older=wanted.allow_older
        )
        if not as_json:
            _say_plan(path, place, todo, dry_run=wanted.dry_run)
        if not wanted.dry_run:
            say = partial(click.echo, err=as_json)
            carry_out(found, place, todo, terms, say, bar)
        signed_by = found.signed_by
    changed = not (todo.nothing or wanted.dry_run)
    left = _left_to_do(place, todo) if changed else []
    if as_json:
        told = Applied(
            file=str(path),
            signed_by=signed_by,
            dry_run=wanted.dry_run,
            changed=changed,
            plan=todo,
            next=left,
        )
        show_json(told)
        return
    if changed:
        click.echo(f"{path.name} is applied.")
    for each in left:
        click.echo(each)


def _place(invocation: Invocation, asked: Asked) -> "Place":
    """Raises UsageError, ConfigError."""
    from app.site_bundle.place import home_place, system_place

    if asked.home and asked.root is not None:
        raise click.UsageError("--home and --root are two places: give one.")
    file, data_dir = invocation.config_file, invocation.data_dir
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if asked.root is not None or (is_root and not asked.home):
        return system_place(file, data_dir, asked.root, asked.prefix)
    return home_place(file, data_dir)


def _keys(given: tuple[str, ...]) -> tuple[str, ...]:
    """Raises CommandFailed."""
    from local_runtime.store.signing import PUBLIC_KEY

    for each in given:
        if not PUBLIC_KEY.fullmatch(each):
            raise CommandFailed(f"--trust-key: {each[:80]!r} is not a public key (64 hex digits).")
    return given


def _say_plan(path: Path, place: "Place", todo: "Plan", *, dry_run: bool) -> None:
    click.echo(f"{path.name}: every byte is as it was signed.")
    for each in todo.overruled:
        click.echo(f"The configuration here says otherwise, and wins: {each}.")
    if todo.damaged:
        click.echo(
            f"{place.data_dir / CARRIED_FILE} is damaged and replaced. If earlier bundles brought"
            " other models, apply those once more, with --allow-older, and then this one."
        )
    if todo.nothing:
        click.echo("All of it is here already: nothing is changed.")
        return
    would = "would " if dry_run else ""
    if todo.program:
        instead = f" in place of {todo.replaces}" if todo.replaces else ""
        click.echo(f"{would}install Turnpike {todo.version}{instead}")
    for name in todo.models:
        click.echo(f"{would}take in the model {name}")
    if todo.terms:
        click.echo(f"{would}put its prices and its list of served models in force")


def _left_to_do(place: "Place", todo: "Plan") -> list[str]:
    """What a running server does not take over by itself."""
    from app.doctor.server import who_is_there
    from app.site_bundle.installing import starts_service

    if not (todo.terms or todo.program) or who_is_there(place.data_dir).server is None:
        return []
    if todo.program and starts_service(place):
        return []  # `install` restarted it
    return [
        "A server runs here: `turnpike restart` takes over all of it and refuses no call;"
        " `turnpike reload` only the prices of providers."
    ]
