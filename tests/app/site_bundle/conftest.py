"""The machine that bundles are made on, and a program to carry."""

from pathlib import Path

import pytest

from tests.app.site_bundle.carried import Connected, one_file


@pytest.fixture
def connected(tmp_path: Path) -> Connected:
    """A machine where bundles are made."""
    folder = tmp_path / "connected"
    folder.mkdir()
    return Connected(folder)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program in one file."""
    place = tmp_path / "program"
    place.mkdir()
    return one_file(place)
