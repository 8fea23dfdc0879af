"""``turnpike config``: check, show."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from app.cli.invocation import Invocation
from app.cli.output import json_option, show_json

if TYPE_CHECKING:
    from app.doctor.finding import Finding

file_argument = click.argument(
    "file", type=click.Path(path_type=Path), required=False, metavar="[FILE]"
)


@click.group()
def config() -> None:
    """The configuration: whether a file is right, and what is in force."""


@config.command()
@file_argument
@json_option
@click.pass_obj
def check(invocation: Invocation, file: Path | None, as_json: bool) -> int:
    """Tell everything that is wrong with FILE, or the file of --config, at once.

    All that a start would refuse, and what it would warn of; nothing is started and nobody asked.
    The exit status is 1 where a start would fail.
    """
    from app.cli.findings import show_findings
    from app.config_survey import survey_file
    from app.doctor.configuration import check_configuration
    from app.doctor.finding import Commands, Severity
    from app.doctor.models import check_models
    from app.doctor.ports import check_ports
    from app.doctor.server import who_is_there

    file = file or invocation.config_file
    survey = survey_file(file, invocation.data_dir)
    found = check_configuration(survey, file)
    if survey.config is not None:
        presence = who_is_there(survey.config.data_dir())
        running = presence.server is not None
        commands = Commands(file, invocation.data_dir)
        beside = check_models(
            survey.config, commands, running=running, in_the_file=survey.in_the_file
        )
        if survey.is_right("server", "port") and survey.is_right("server", "host"):
            beside += _as_warnings(check_ports(survey.config.server, presence))
        found += [each for each in beside if each.severity is not Severity.OK]
    return show_findings(found, as_json=as_json)


@config.command()
@file_argument
@click.option("--origin", is_flag=True, help="Say where each setting is from.")
@json_option
@click.pass_obj
def show(invocation: Invocation, file: Path | None, origin: bool, as_json: bool) -> None:
    """Print the configuration in force, with all defaults, as TOML.

    Secrets are shown only as the references to them that the file has.
    """
    from app.config import load
    from app.config_carried import carried_places
    from app.config_survey import survey_file
    from app.config_toml import settings_of, to_toml

    file = file or invocation.config_file
    in_force = load(file, invocation.data_dir)  # refuses what a start refuses, in its words
    lines = survey_file(file).lines
    given = invocation.data_dir is not None
    carried = carried_places(file, invocation.data_dir)
    settings = settings_of(in_force, lines, file, data_dir_given=given, carried=carried)
    if as_json:
        found = list(settings.values())
        show_json(found if origin else {each.path: each.value for each in found})
        return
    if in_force.server.data_dir is None:
        click.echo(f"# The data directory is {in_force.data_dir()}, this platform's own place.")
    if not in_force.local.models and in_force.local_models():
        (starter,) = in_force.local_models()
        click.echo(f"# No model and no provider is configured: {starter.id} is served.")
    click.echo(to_toml(in_force, settings if origin else None), nl=False)


def _as_warnings(findings: "list[Finding]") -> "list[Finding]":
    """What is so only now, and says nothing about the file."""
    import msgspec

    from app.doctor.finding import Severity

    return [
        msgspec.structs.replace(each, severity=Severity.WARNING)
        if each.code == "port.taken"
        else each
        for each in findings
    ]
