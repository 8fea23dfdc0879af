"""Files stay under 400 lines and functions under 70: what is longer has more than one subject."""

import ast

from tests.tidy.ratchet import FILES_OVER, FUNCTIONS_OVER
from tests.tidy.tree import parsed, python_files, short

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


def compare(measured: dict[str, int], allowed: dict[str, int]) -> list[str]:
    """What grew, and which exceptions have become too generous."""
    grown = [
        f"{name}: {lines} lines, at most {allowed.get(name, 'the limit')}"
        for name, lines in measured.items()
        if lines > allowed.get(name, 0)
    ]
    loose = [
        f"{name}: has {measured.get(name, 'few enough')} lines, ratchet.py still allows {lines}"
        for name, lines in allowed.items()
        if measured.get(name, 0) < lines
    ]
    return grown + loose


def test_files_are_short() -> None:
    measured = {
        short(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()
    }
    over = {name: lines for name, lines in measured.items() if lines > FILE_LINES_MAX}
    assert compare(over, FILES_OVER) == []


def test_functions_are_short() -> None:
    over = {}
    for path in python_files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    over[f"{short(path)}::{node.name}"] = lines
    assert compare(over, FUNCTIONS_OVER) == []


def test_the_ratchet_only_turns_one_way() -> None:
    assert compare({"a": 500}, {"a": 500}) == []
    assert compare({"a": 501}, {"a": 500}) == ["a: 501 lines, at most 500"]
    assert compare({"a": 401}, {}) == ["a: 401 lines, at most the limit"]
    assert compare({"a": 499}, {"a": 500}) == ["a: has 499 lines, ratchet.py still allows 500"]
    assert compare({}, {"a": 500}) == ["a: has few enough lines, ratchet.py still allows 500"]
