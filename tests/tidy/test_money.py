"""Money is integers and exact decimals: no float may come near it."""

import ast

import pytest

from tests.tidy.tree import ROOT, parsed, python_files, short

ROOMS = ("app/billing", "app/ledger")


def floats(tree: ast.AST) -> list[int]:
    """Lines with a float literal, the name ``float``, or a division that makes one.

    Seconds are no money: what is named ``…_s`` or ``…_seconds`` may be declared a float.
    """
    found = []
    seconds = {id(annotation) for annotation in _annotations_of_seconds(tree)}
    for node in ast.walk(tree):
        literal = isinstance(node, ast.Constant) and isinstance(node.value, float | complex)
        named = isinstance(node, ast.Name) and node.id == "float" and id(node) not in seconds
        divided = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
        if literal or named or divided:
            found.append(getattr(node, "lineno", 0))
    return found


def _annotations_of_seconds(tree: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        name, annotation = "", None
        if isinstance(node, ast.arg):
            name, annotation = node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, annotation = node.target.id, node.annotation
        if annotation is not None and name.endswith(("_s", "_seconds")):
            found.append(annotation)
    return found


def test_rooms_of_money_have_no_floats() -> None:
    bad = []
    for path in python_files("app"):
        if short(path).startswith(ROOMS):
            bad += [f"{short(path)}:{line}" for line in floats(parsed(path))]
    assert bad == []


def test_the_rooms_are_where_this_test_looks() -> None:
    assert [room for room in ROOMS if not (ROOT / room).is_dir()] == []


@pytest.mark.parametrize("code", ["x = 0.1", "x = float(y)", "x = a / b", "x /= 2", "x: float = y"])
def test_the_rule_sees(code: str) -> None:
    assert floats(ast.parse(code)) == [1]


@pytest.mark.parametrize(
    "code", ["x = 1", "x = a // b", "x = Decimal('0.1')", "x = '1.5'", "wait_s: float"]
)
def test_the_rule_lets_pass(code: str) -> None:
    assert floats(ast.parse(code)) == []
