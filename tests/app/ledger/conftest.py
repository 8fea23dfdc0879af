"""An open store per test, under each implementation."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.ledger.books import Books, opened


@pytest.fixture(params=["sqlite"])
async def books(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Books]:
    """A later store joins here with a parameter of its own."""
    assert request.param == "sqlite"
    async with opened(tmp_path / "ledger.db") as found:
        yield found
        if found.database.failed is None:
            assert (await found.audit()).problems == []
