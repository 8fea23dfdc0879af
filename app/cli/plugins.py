"""``turnpike plugins``: list, check. Both work without a server and leave the data alone."""

import asyncio
import json
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, on_terminal, show_json, show_table
from app.config import Config, secret
from app.errors import ConfigError
from app.providers import USER_AGENT, find_plugins
from plugins.check import Finding
from plugins.check import check as check_plugin
from plugins.contract import Plugin
from plugins.discover import Found, add, find
from plugins.drop_in import FolderFile, load_file, run_file, survey
from plugins.http.fetch import Fetcher
from plugins.openai_compatible.presets import PRESETS
from plugins.tasks import CONVERSATIONAL, FEATURE_EXTRACTION, TASKS
from plugins.trial import BadTrial, Trial
from plugins.vetting import PluginRefused

_QUICKLY_S, _QUEUED_S = 120.0, 600.0


class PluginLine(msgspec.Struct):
    """One plugin. ``source`` is shipped, installed or drop-in; ``where`` its entry point or file;
    ``base_url`` where it goes unless told otherwise."""

    name: str
    title: str
    source: str
    where: str
    contract_version: int
    needs_key: bool
    base_url: str | None


class FileLine(msgspec.Struct):
    """One file of the folder; ``problem`` is why it is allowed and yet cannot be used."""

    file: str
    sha256: str
    allowed: bool
    problem: str


class PluginList(msgspec.Struct):
    """What ``turnpike plugins list`` shows."""

    plugins: list[PluginLine]
    files: list[FileLine]


@click.group()
def plugins() -> None:
    """The code that speaks to providers: what there is, and whether it keeps the rules."""


@plugins.command("list")
@json_option
@click.pass_obj
def list_plugins(invocation: Invocation, as_json: bool) -> None:
    """List the plugins, and the files in the plugins folder with their hashes.

    Only files that the configuration allows are run.
    """
    told = invocation.config().plugins
    folder = Path(told.folder).expanduser() if told.folder else None
    try:
        found = find()
        files = survey(folder, told.allow) if folder else []
    except PluginRefused as error:
        raise ConfigError(str(error)) from error
    lines = [_try(found, folder, each, told.allow) for each in files] if folder else []
    listing = PluginList([_line(found[name]) for name in sorted(found)], lines)
    if as_json:
        show_json(listing)
    else:
        _show(listing)


def _try(
    found: dict[str, Found], folder: Path, file: FolderFile, allow: Mapping[str, str]
) -> FileLine:
    """Run an allowed file and put its plugin into ``found``."""
    problem = file.problem
    if file.allowed and not problem:
        try:
            plugin = load_file(folder, file.name, allow[file.name])
            add(found, Found(plugin, "drop-in", str(folder / file.name)))
        except PluginRefused as error:
            problem = str(error)
    return FileLine(file.name, file.digest, file.allowed, problem)


def _line(found: Found) -> PluginLine:
    plugin = found.plugin
    urls = {preset.name: preset.base_url for preset in PRESETS}
    return PluginLine(
        name=plugin.name,
        title=plugin.title,
        source=found.source,
        where=found.where,
        contract_version=plugin.contract_version,
        needs_key=plugin.needs_key,
        base_url=urls.get(plugin.name) if found.source == "shipped" else None,
    )


def _show(listing: PluginList) -> None:
    show_table(
        [Column(each) for each in ("Name", "Title", "Source", "Contract", "Needs key", "Base URL")],
        [
            [
                line.name,
                line.title or "-",
                f"{line.source} {line.where}".rstrip(),
                str(line.contract_version),
                "yes" if line.needs_key else "no",
                line.base_url or "-",
            ]
            for line in listing.plugins
        ],
        empty="There are no plugins.",
    )
    if not listing.files:
        return
    click.echo()
    show_table(
        [Column(each) for each in ("File", "Allowed", "SHA-256", "Problem")],
        [
            [_shown(line.file), "yes" if line.allowed else "no", line.sha256 or "-", _told(line)]
            for line in listing.files
        ],
        empty="",
    )
    new = [line for line in listing.files if line.sha256 and not line.allowed]
    if new:
        click.echo("\nRead a file before it is allowed; then, in the configuration:\n")
        click.echo("[plugins.allow]")
        for line in new:
            click.echo(f'{json.dumps(line.file)} = "{line.sha256}"')


def _told(line: FileLine) -> str:
    return _shown(line.problem) or "-"


def _shown(text: str) -> str:
    """A file's name may hold anything; a table's cell may not."""
    return text if text.isprintable() else ascii(text)


@plugins.command()
@click.argument("plugin", metavar="NAME|FILE.py")
@click.option("--model", required=True, metavar="ID", help="The provider's own name of a model.")
@click.option("--task", type=click.Choice(TASKS), default=CONVERSATIONAL, show_default=True)
@click.option(
    "--base-url", metavar="URL", help="Where the provider is, if not where it usually is."
)
@click.option("--api-key", metavar="env:NAME|file:PATH", help="Where the provider key is.")
@click.option(
    "--setting", "settings", multiple=True, metavar="K=V", help="A setting of the plugin."
)
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter of the request.")
@click.option("--prompt", metavar="TEXT", help="What is asked, in place of our own short question.")
@click.option("--tools", is_flag=True, help="Ask for tool calls too; the model must know them.")
@click.option("--quick", is_flag=True, help="Leave out the rules that take many calls.")
@json_option
@click.pass_obj
def check(  # noqa: PLR0913 - one argument per option
    invocation: Invocation,
    plugin: str,
    *,
    model: str,
    task: str,
    base_url: str | None,
    api_key: str | None,
    settings: tuple[str, ...],
    params: tuple[str, ...],
    prompt: str | None,
    tools: bool,
    quick: bool,
    as_json: bool,
) -> int:
    """Hold a plugin against the rules, with real calls to its provider; they cost what they cost.

    FILE.py is run as it is, allowed or not. A chat model is called about 30 times for at most a few
    hundred tokens each (with --quick, 10 times), a model of another task about 25 times (with
    --quick, 3 times). The exit status is 1 where a rule is broken.
    """
    config = invocation.config()
    chosen = _chosen(config, plugin)
    key = secret(api_key, where="--api-key")
    if chosen.needs_key and key is None:
        raise click.UsageError(f"{chosen.name} needs a key: --api-key env:NAME or file:PATH.")
    trial = Trial(
        upstream_id=model,
        task=task,
        api_key=key,
        prompt=prompt,
        params=_pairs(params, "--param"),
        tools=tools,
        quick=quick,
        patience_s=_QUICKLY_S if task in {CONVERSATIONAL, FEATURE_EXTRACTION} else _QUEUED_S,
    )
    given = _pairs(settings, "--setting")
    if base_url is not None:
        given["base_url"] = base_url
    work = check_plugin(chosen, given, trial, user_agent=USER_AGENT, fetch=_fetcher(config))
    try:
        findings = asyncio.run(work)
    except BadTrial as error:
        raise click.UsageError(f"--param: {error}") from error
    if as_json:
        show_json(findings)
    else:
        _show_findings(findings)
    return int(any(finding.result == "failed" for finding in findings))


def _chosen(config: Config, plugin: str) -> Plugin:
    if not plugin.endswith(".py"):
        known = find_plugins(config)
        if plugin not in known:
            raise ConfigError(f"no plugin {plugin!r}; there are: {', '.join(sorted(known))}")
        return known[plugin]
    try:
        return run_file(Path(plugin))
    except PluginRefused as error:
        raise ConfigError(str(error)) from error


def _pairs(given: tuple[str, ...], option: str) -> dict[str, Any]:
    """Values are JSON where they can be read as such, and text elsewhere."""
    found: dict[str, Any] = {}
    for each in given:
        name, is_pair, value = each.partition("=")
        if not is_pair or not name:
            raise click.UsageError(f"{option}: expected NAME=VALUE, found {each!r}.")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
    return found


def _fetcher(config: Config) -> Fetcher:
    try:
        return Fetcher([ip_network(each) for each in config.egress.allowed_networks], USER_AGENT)
    except ValueError as error:
        raise ConfigError(f"egress.allowed_networks: {error}") from error


def _show_findings(findings: list[Finding]) -> None:
    show_table(
        [Column(title) for title in ("Rule", "Result", "Reason")],
        [[each.rule, each.result, _shown(each.reason) or "-"] for each in findings],
        empty="",
    )
    if on_terminal():
        count = {name: sum(f.result == name for f in findings) for name in _RESULTS}
        click.echo("\n" + ", ".join(f"{number} {name}" for name, number in count.items()))


_RESULTS = ("ok", "failed", "skipped")
