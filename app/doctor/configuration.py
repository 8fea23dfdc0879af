"""The configuration file: all that a start would refuse, and as much of it at once as can be told.

The file itself is read by ``app.config_survey``. Here is what a start finds out afterwards: secrets
that cannot be had, plugins that cannot be loaded, providers whose settings they refuse.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from app.clock import SystemClock
from app.config import Config, secret
from app.config_faults import Fault, Steps, shown
from app.config_secrets import references
from app.config_survey import Survey
from app.doctor.finding import Finding, Severity
from app.errors import ConfigError
from app.identity.master_keys import MasterKeySource
from app.jobs.deliver_events import webhook_to
from app.logs.file import check_place
from app.providers import Builder, fetcher_of, find_plugins
from app.tracing.settings import settings_of

ABOUT = "configuration"
_CODES = {
    "unknown": "config.unknown_key",
    "missing": "config.missing",
    "wrong": "config.wrong_value",
    "key": "config.wrong_name",
    "rule": "config.rule",
}
_PATH = re.compile(r"[a-z_]+(?:\[\d+\]|\.[a-z_]+)*(?=: )")
_STEP = re.compile(r"[a-z_]+|\d+")
# Needed only while a model is pulled, so a start does without.
_LATER: tuple[Steps, ...] = (("local", "hub", "token"),)


def check_configuration(survey: Survey, file: Path | None) -> list[Finding]:
    """Every problem, in the order of the file's lines; one finding that all is well, if it is."""
    found = [_of_fault(fault, survey, file) for fault in survey.faults]
    config = survey.config
    if config is not None:
        found += _of_secrets(survey, config, file)
        for steps, error in (*_of_providers(survey, config), *_of_the_rest(config)):
            found.append(_of_error(steps, error, survey, file))
        found.sort(key=lambda finding: finding.line or 0)
    if found:
        return found
    text = "no file is given: every setting has its default" if file is None else f"{file} is right"
    return [Finding(code="config.ok", severity=Severity.OK, about=ABOUT, text=text)]


def _of_fault(fault: Fault, survey: Survey, file: Path | None) -> Finding:
    if fault.sort == "carried":
        return Finding(
            code="config.carried",
            severity=Severity.PROBLEM,
            about=ABOUT,
            text=fault.text,
            fix="turnpike bundle apply FILE",
        )
    code = "config.unreadable" if survey.config is None and not fault.steps else _CODES[fault.sort]
    return _finding(code, fault.steps, fault.text, survey, file)


def _finding(
    code: str,
    steps: Steps,
    text: str,
    survey: Survey,
    file: Path | None,
    severity: Severity = Severity.PROBLEM,
) -> Finding:
    path, line = shown(steps), survey.line_of(steps)
    if line is None:
        # TOML's own messages have it in words.
        said = re.search(r"\(at line (\d+)", text)
        line = int(said[1]) if said else None
    where = str(file) if file is not None else "the configuration"
    at = where if line is None else f"{where}, line {line}"
    return Finding(
        code=code,
        severity=severity,
        about=ABOUT,
        text=f"{path}: {text}" if path else text,
        fix=f"Correct {path or 'the file'} in {at}; then: {_again(file)}",
        path=path or None,
        line=line,
    )


def _again(file: Path | None) -> str:
    return "turnpike config check" if file is None else f"turnpike config check {file}"


def _of_error(steps: Steps, error: ConfigError, survey: Survey, file: Path | None) -> Finding:
    """A start's message begins with the setting's path, where it knows it; else it is ``steps``."""
    found, text = _PATH.match(error.message), error.message
    if found is not None:
        steps = tuple(int(s) if s.isdigit() else s for s in _STEP.findall(found[0]))
        text = text[found.end() + 2 :]
    code = "provider.refused" if steps[0] == "providers" else f"{steps[0]}.refused"
    return _finding(code, survey.in_the_file(steps), text, survey, file)


def _of_secrets(survey: Survey, config: Config, file: Path | None) -> Iterator[Finding]:
    """Secrets that a start would read, and cannot."""
    for reference in references(config):
        path = shown(reference.steps)
        try:
            secret(reference.value, where=path)
        except ConfigError as error:
            severity = Severity.WARNING if reference.steps in _LATER else Severity.PROBLEM
            text = error.message.removeprefix(f"{path}: ")
            code = "secret.literal" if "a literal value" in text else "secret.missing"
            steps = survey.in_the_file(reference.steps)
            yield _finding(code, steps, text, survey, file, severity)


def _of_providers(survey: Survey, config: Config) -> Iterator[tuple[Steps, ConfigError]]:
    """Plugins that cannot be loaded, and providers that they cannot build."""
    try:
        fetcher_of(config)
        find_plugins(config)
    except ConfigError as error:
        # Without them no provider can be built, nor said to be wrong.
        yield ("plugins",), error
        return
    builder = Builder(config, SystemClock())
    for at in range(len(config.providers)):
        steps: Steps = ("providers", at)
        here = survey.in_the_file(steps)
        if any(fault.steps[:2] == here for fault in survey.faults):
            continue  # it is only half there
        try:
            builder.adapter(at)
        except ConfigError as error:
            yield steps, error


def _of_the_rest(config: Config) -> Iterator[tuple[Steps, ConfigError]]:
    """What only the part that uses a setting can judge; secrets that are not there were told."""
    if config.webhook.url is not None:
        try:
            webhook_to(config.webhook.url, _known(config.webhook.secret))
        except ConfigError as error:
            yield ("webhook",), error
    if all(map(_known, config.tracing.headers.values())):
        try:
            settings_of(config)
        except ConfigError as error:
            yield ("tracing",), error
    if config.logs.file is not None:
        try:
            _check_log(Path(config.logs.file).expanduser())
        except ConfigError as error:
            yield ("logs", "file"), error
    if config.secrets.master_key is None or _known(config.secrets.master_key) is None:
        return
    if all(_known(old) for old in config.secrets.old_master_keys):
        try:
            MasterKeySource(config.secrets, config.data_dir()).load()
        except ConfigError as error:
            yield ("secrets",), error


def _check_log(path: Path) -> None:
    """As a start does, without making the file. Raises ConfigError."""
    check_place(path)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(
            f"logs.file: {path} cannot be written. Give it to the user that runs the server, or"
            " choose another with `file` under [logs]."
        )


def _known(reference: str | None) -> str | None:
    try:
        return secret(reference, where="")
    except ConfigError:
        return None
