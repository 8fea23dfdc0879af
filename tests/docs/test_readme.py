"""The README's map, commands and snippets are those of the tree."""

import ast
import re
import shlex
import tomllib

import click
import pytest

from app.cli.main import turnpike
from app.config import parse
from tests.tidy.tree import ROOT, python_files

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
IN_A_ROW = re.compile(r"^\| `([^`]+/)` \|", re.MULTILINE)
QUOTED = re.compile(r"`([^`\n]+)`")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def targets() -> set[str]:
    declared = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert declared is not None
    return set(declared[1].split())


def test_the_table_of_rooms_is_the_tree() -> None:
    rooms = {"plugins/", "local_runtime/", "tests/", "packaging/"}
    for path in python_files("app"):
        parts = path.relative_to(ROOT).parts
        if len(parts) > 2:
            rooms.add(f"app/{parts[1]}/")
    rows = IN_A_ROW.findall(README)
    assert sorted(rows) == sorted(rooms)


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_path_named_exists(text: str) -> None:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    named = {
        word
        for word in QUOTED.findall(prose)
        if re.fullmatch(r"[A-Za-z_][\w.]*(/[\w.]+)*(/|\.(py|md|toml|txt))", word)
    }
    assert len(named) > 3
    assert sorted(word for word in named if not (ROOT / word).exists()) == []


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_make_command_exists(text: str) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named
    assert named - targets() == set()
    for target in named:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_every_make_target_is_told() -> None:
    told = set(re.findall(r"^\| `make ([a-z-]+)` \|", README, re.MULTILINE))
    assert told == targets() - {"help", "clean"}


def command_lines() -> list[list[str]]:
    shell = "\n".join(blocks("sh"))
    lines = re.findall(r"^\.venv/bin/turnpike (.*)$", shell, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_every_turnpike_command_parses(words: list[str]) -> None:
    parses(words)


def parses(words: list[str]) -> None:
    """Down to the command's own arguments; nothing is run."""
    found: click.Command = turnpike
    context, rest = click.Context(turnpike, info_name="turnpike"), list(words)
    while isinstance(found, click.Group):
        _, rest, _ = found.make_parser(context).parse_args(rest)
        if found.invoke_without_command and not rest:
            return
        name, command, rest = found.resolve_command(context, rest)
        assert command is not None
        found, context = command, click.Context(command, parent=context, info_name=name)
    found.make_context(context.info_name, rest, parent=context.parent)


def leaves(command: click.Command, path: str) -> list[str]:
    if command.hidden:
        return []
    if isinstance(command, click.Group):
        return [p for n, c in command.commands.items() for p in leaves(c, f"{path} {n}")]
    return [path.strip()]


def test_every_turnpike_command_is_told() -> None:
    shown = [" ".join(words) for words in command_lines()]
    untold = [path for path in leaves(turnpike, "") if not any(path in line for line in shown)]
    assert untold == []


def test_every_toml_block_is_a_configuration() -> None:
    assert blocks("toml")
    for text in blocks("toml"):
        parse(tomllib.loads(text), source="README.md")


def test_every_python_block_is_python() -> None:
    assert blocks("python")
    for text in blocks("python"):
        ast.parse(text)
