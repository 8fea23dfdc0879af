"""The jobs about routing: who is tried by the configuration, and that the table has them."""

from pathlib import Path
from typing import Any

import pytest

from app.billing.resolution import Resolution
from app.config import parse
from app.gateway.adapters import Adapters
from app.jobs.probe_offers import OfferProbes, probe_rules
from app.jobs.schedule import Crew, table
from app.ledger.time import LedgerClock
from app.routing.catalog import Catalog
from app.routing.discovery import Discoveries
from app.routing.health import Health
from app.routing.key_pools import KeyPools
from app.routing.probe_results import ProbeResults
from app.routing.probes import Prober, ProbeRules
from tests.app.ledger.books import opened
from tests.app.ledger.two_clocks import TwoClocks


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        ({}, ProbeRules(providers=frozenset({"acme"}), every_s=21_600.0, failing_every_s=3_600.0)),
        ({"probes": False}, ProbeRules(providers=frozenset())),
        (
            {"probe_every_seconds": 60.0, "probe_failing_every_seconds": 5.0},
            ProbeRules(providers=frozenset({"acme"}), every_s=60.0, failing_every_s=5.0),
        ),
    ],
)
def test_rules_are_those_of_the_configuration(
    routing: dict[str, Any], expected: ProbeRules
) -> None:
    providers = [{"id": "acme", "plugin": "echo"}, {"id": "beta", "plugin": "echo", "probe": False}]
    config = parse({"providers": providers, "routing": routing}, source="test")
    assert probe_rules(config) == expected


async def test_both_jobs_run_at_the_start(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as books:
        clock, adapters = LedgerClock(TwoClocks()), Adapters({})
        keys, health = KeyPools([], clock), Health(clock)
        prober = Prober(
            results=ProbeResults(books.database, clock),
            health=health,
            keys=keys,
            house=books.ledger,
            clock=clock,
            rate=lambda _usage, _price: 0,
            adapters=adapters,
            rules=ProbeRules(providers=frozenset()),
        )
        crew = Crew(
            database=books.database,
            ledger=books.ledger,
            clock=clock,
            resolution=Resolution(books.ledger, [], books.clock, "Turnpike/test"),
            discoveries=Discoveries(books.database, clock, keys, adapters, []),
            probes=OfferProbes(prober, Catalog({}, clock.now_ms()), clock),
        )
        jobs = {job.name: job for job in table(crew)}
        for name in ("discover models", "probe offers"):
            assert jobs[name].at_start
            await jobs[name].run()
