"""Accounts over a database in the test's own directory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.billing.accounts_world import World, build


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    built = await build(tmp_path / "turnpike.db")
    yield built
    await built.database.close()
