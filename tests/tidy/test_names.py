"""Names that say nothing, packages that do something on import, and modules without a word."""

import ast
from pathlib import Path

from tests.tidy.tree import PACKAGES, ROOT, files, parsed, python_files, short

SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    bad = [short(path) for path in python_files() if SAYS_NOTHING & {path.stem, *_folders(path)}]
    assert bad == []


def _folders(path: Path) -> set[str]:
    return set(path.relative_to(ROOT).parent.parts)


def test_packages_start_nothing() -> None:
    """``import app`` runs nothing: every ``__init__.py`` is empty."""
    bad = [short(p) for p in python_files() if p.name == "__init__.py" and p.stat().st_size]
    assert bad == []


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in python_files(*PACKAGES)}
    assert [short(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_packaging_and_tests_are_not_packages() -> None:
    """A package named packaging would shadow the one that pip and pytest need."""
    bad = [p for p in python_files("packaging", "tests") if p.name == "__init__.py"]
    assert [short(path) for path in bad] == []


def test_every_module_says_what_it_is() -> None:
    bad = [
        short(path)
        for path in python_files()
        if path.name != "__init__.py" and not ast.get_docstring(parsed(path))
    ]
    assert bad == []


def test_the_top_level_is_fixed() -> None:
    """What is new there needs a reason."""
    top = {path.relative_to(ROOT).parts[0] for path in files()}
    fixed = {"app", "plugins", "local_runtime", "tests", "packaging", "config.example.toml"}
    usual = {"pyproject.toml", "README.md", "CONTRIBUTING.md", "LICENSE", "Makefile"}
    hidden = {".ci", ".gitignore"}
    assert top - fixed - usual - hidden == set()
