"""New prices are carried to a site that serves: they come with a reload, and change nothing that
was billed before."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.config import load
from app.site_bundle.create import create
from local_runtime.store.catalog import Store
from local_runtime.store.signing import make_key, read_key
from tests.app.site_bundle.carried import one_file
from tests.appliance import RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider

PRICED = """
[[providers]]
id = "lan"
plugin = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
[[providers.models]]
id = "acme/tiny"
price = {{ input = "{input}", output = "{output}" }}
"""
UNPRICED = """
[[providers]]
id = "lan"
plugin = "openai_compatible"
base_url = "{url}"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
"""


class Prices:
    """A connected machine whose bundles bring prices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = one_file(folder)
        self.public = make_key(folder / "key.pem")

    def bundle(self, name: str, at_s: int, **price: str) -> Path:
        config = self.folder / f"{name}.toml"
        config.write_text(PRICED.format(**price))
        os.utime(config, (at_s, at_s))
        path = self.folder / f"{name}.tar"
        store, key = Store(self.folder / "models"), read_key(self.folder / "key.pem")
        loaded = load(config, str(self.folder / "data"))
        create(path, loaded, config, store, [], self.program, key)
        return path

    def apply(self, bundle: Path, data: Path) -> dict[str, Any]:
        """Prices only, into the data directory."""
        words = ["bundle", "apply", str(bundle), "--trust-key", self.public, "--home", "--json"]
        config = data / "config.toml"
        where = ["--config", str(config)] if config.exists() else []
        done = subprocess.run(
            [sys.executable, "-m", "app", *where, "--data-dir", data, *words, "--models-only"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def costs(running: RunningAppliance) -> list[tuple[int, int, int]]:
    """Tokens in and out, and nano-USD, of every call, the first call first."""
    rows = json.loads(running.cli("usage", "rows", "--json"))
    return [
        (row["input_tokens"], row["output_tokens"], row["cost_nano_usd"])
        for row in sorted(rows, key=lambda row: int(row["at_ms"]))
    ]


async def test_carried_prices_come_with_a_reload_and_nothing_is_billed_anew(tmp_path: Path) -> None:
    folder, data = tmp_path / "connected", tmp_path / "data"
    folder.mkdir()
    prices = Prices(folder)
    first = prices.bundle("first", 1_890_000_000, input="0.20", output="0.60")
    second = prices.bundle("second", 1_890_000_100, input="2.00", output="6.00")
    assert prices.apply(first, data)["next"] == []
    async with PlayedProvider() as provider:
        with appliance(data, UNPRICED.format(url=provider.base_url)) as running:
            key = await asyncio.to_thread(running.key)
            (await asyncio.to_thread(running.chat, key, "acme/tiny")).raise_for_status()
            told = await asyncio.to_thread(prices.apply, second, data)
            assert "`turnpike reload` only the prices of providers" in told["next"][0]
            (await asyncio.to_thread(running.chat, key, "acme/tiny")).raise_for_status()
            said = await asyncio.to_thread(running.cli, "reload")
            assert "providers" in said
            (await asyncio.to_thread(running.chat, key, "acme/tiny")).raise_for_status()
            found = await asyncio.to_thread(costs, running)
    assert [cost for *_, cost in found] == [
        spent * each_in + got * each_out
        for (spent, got, _), (each_in, each_out) in zip(
            found, [(200, 600), (200, 600), (2000, 6000)], strict=True
        )
    ]
    assert found[0][2] > 0


def restored(backup: Path, config: Path, data: Path) -> str:
    where = ["--config", str(config), "--data-dir", str(data)]
    command = [sys.executable, "-m", "app", *where, "restore", str(backup)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_site_that_is_restored_elsewhere_bills_as_before(tmp_path: Path) -> None:
    """The configuration alone has no price, and a server would not start with it."""
    folder, data, fresh = tmp_path / "connected", tmp_path / "data", tmp_path / "fresh"
    folder.mkdir()
    prices = Prices(folder)
    prices.apply(prices.bundle("first", 1_890_000_000, input="0.20", output="0.60"), data)
    backup = tmp_path / "backup.tar"
    async with PlayedProvider() as provider:
        config = UNPRICED.format(url=provider.base_url)
        with appliance(data, config) as running:
            key = await asyncio.to_thread(running.key)
            (await asyncio.to_thread(running.chat, key, "acme/tiny")).raise_for_status()
            await asyncio.to_thread(running.cli, "backup", str(backup))
        said = await asyncio.to_thread(restored, backup, data / "config.toml", fresh)
        assert "prices and models that a bundle had carried are in force again" in said
        with appliance(fresh, config) as running:
            (await asyncio.to_thread(running.chat, key, "acme/tiny")).raise_for_status()
            (first, second) = await asyncio.to_thread(costs, running)
    assert first == second
    assert first[2] > 0
