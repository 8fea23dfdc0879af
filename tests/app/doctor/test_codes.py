"""The codes of findings are for machines: each is well formed, and shown to work by a test."""

import ast
import re

import pytest

from tests.tidy.tree import ROOT, parsed, python_files, short

CODE = re.compile(r"[a-z_]+\.[a-z_]+")
MAKERS = {"ok", "warning", "problem", "told"}
HERE = "tests/app/doctor/test_codes.py"


def codes() -> dict[str, str]:
    """Every code that a check gives to what is not well, and the file that it is in."""
    found = {}
    for path in python_files("app"):
        if not short(path).startswith("app/doctor/"):
            continue
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if name in MAKERS - {"ok"} and isinstance(first, ast.Constant):
                found[str(first.value)] = short(path)
    return found


def told() -> str:
    """All that the tests say."""
    places = ("tests/app/doctor/", "tests/app/cli/test_doctor", "tests/journeys/test_doctor")
    return "".join(
        path.read_text(encoding="utf-8")
        for path in python_files("tests")
        if short(path).startswith(places) and short(path) != HERE
    )


def test_there_are_many() -> None:
    assert len(codes()) > 30
    assert (ROOT / HERE).exists()


@pytest.mark.parametrize("code", sorted(codes()))
def test_each_is_well_formed_and_has_a_test(code: str) -> None:
    assert CODE.fullmatch(code)
    assert f'"{code}"' in told()
