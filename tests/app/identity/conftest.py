"""The identity room over a database in the test's own directory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.identity.rig import Rig, build


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    built = await build(tmp_path / "turnpike.db")
    yield built
    await built.ring.close()
    await built.database.close()
