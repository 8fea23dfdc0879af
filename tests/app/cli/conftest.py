"""The command line on a data directory that does not exist yet."""

from pathlib import Path

import pytest

from tests.app.cli.terminal import Inside, Turnpike

CONFIG = """
[tiers.gold]
monthly_credit_usd = "5"
[[providers]]
id = "mock"
plugin = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
[[providers.models]]
id = "acme/tiny"
price = { input = "0.20", output = "0.60" }
context_length = 8192
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def turnpike(tmp_path: Path, config_file: Path) -> Turnpike:
    return Turnpike(tmp_path / "new" / "data", config_file)


@pytest.fixture
def inside(tmp_path: Path, config_file: Path) -> Inside:
    return Inside(tmp_path / "new" / "data", config_file)
