"""How findings are printed: in groups, coloured on a terminal, one a line when piped."""

from collections.abc import Sequence
from itertools import groupby

import rich_click as click
from rich.console import Console
from rich.text import Text

from app.cli.output import on_terminal, show_json
from app.doctor.finding import Finding, Severity, failed

_COLOURS = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.PROBLEM: "bold red"}
_WIDTH = max(map(len, Severity))


def show_findings(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print them; the exit status, which is 1 where one is a problem."""
    if as_json:
        show_json({"ok": not failed(findings), "findings": list(findings)})
    elif on_terminal():
        _show_groups(findings)
    else:
        for each in findings:
            cells = (str(each.severity), each.code, each.text, each.fix)
            click.echo("\t".join(" ".join(cell.split()) for cell in cells))
    return int(failed(findings))


def _show_groups(findings: Sequence[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for about, group in groupby(findings, key=lambda each: each.about):
        console.print(Text(about[:1].upper() + about[1:], "bold"))
        for each in group:
            mark = (f"  {each.severity:<{_WIDTH}}  ", _COLOURS[each.severity])
            code = "" if each.severity is Severity.OK else f"  ({each.code})"
            console.print(Text.assemble(mark, each.text, (code, "dim")))
            if each.fix:
                console.print(Text(f"  {'':<{_WIDTH}}  → {each.fix}"))
    console.print(Text(summary(findings)))


def summary(findings: Sequence[Finding]) -> str:
    """How many problems and warnings there are."""
    count = {severity: sum(each.severity is severity for each in findings) for severity in Severity}
    problems, warnings = count[Severity.PROBLEM], count[Severity.WARNING]
    if not problems and not warnings:
        return "\nAll is well."
    return f"\n{_number(problems, 'problem')}, {_number(warnings, 'warning')}."


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
