"""The table of metrics is what a server gives: every one of them, with its type and labels."""

import asyncio
import gc
from pathlib import Path

import httpx
import pytest

from app.api.health import Metrics
from app.boot import open_appliance
from app.config import Config, Server
from tests.appliance import MOCK_PROVIDER, appliance
from tests.packaging.monitoring.metrics import Described, collected, scraped, told
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene


async def test_every_metric_of_a_server_is_told_and_every_one_told_is_there(
    tmp_path: Path,
) -> None:
    async with PlayedProvider() as played:
        played.script("normal", "normal", Scene(status=500))
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            for stream in (False, True, False):
                await asyncio.to_thread(running.chat, key, "acme/tiny", stream=stream)
            await asyncio.to_thread(running.chat, "tp_nobody", "acme/tiny")
            async with httpx.AsyncClient(trust_env=False) as http:
                answer = await http.get(f"{running.base_url}/metrics")
    found = scraped(answer.text)
    table = told()
    assert sorted(found) == sorted(table)
    for name, given in found.items():
        assert given.kind == table[name].kind, name
        assert given.labels <= table[name].labels, name
    for name in ("turnpike_calls_total", "turnpike_calls_refused_total", "turnpike_call_seconds"):
        assert found[name].labels == table[name].labels, name


async def test_the_labels_told_are_those_that_the_collectors_use(tmp_path: Path) -> None:
    config = Config(server=Server(port=0, data_dir=str(tmp_path / "data")))
    others = _alive()  # of tests before this one
    async with open_appliance(config, serving=False):
        (metrics,) = (each for each in _alive() if all(each is not other for other in others))
        families = list(metrics.collect())
    found, table = collected(families), told()
    assert {name: table.get(name) for name in found} == found


def _alive() -> list[Metrics]:
    # Not ``isinstance``: it asks objects for their class, and those of torch warn at that.
    return [each for each in gc.get_objects() if type(each) is Metrics]


def test_the_comparison_sees_a_difference() -> None:
    with pytest.raises(KeyError):
        _ = told()["turnpike_nothing"]
    text = '# HELP a_total x\n# TYPE a_total counter\na_total{b="c"} 1\n'
    assert scraped(text) == {"a_total": Described("counter", frozenset({"b"}))}
