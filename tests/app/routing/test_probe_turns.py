"""When each offer is tried: at once, every six hours, hourly while it fails, two at a time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from app.jobs.probe_offers import OfferProbes
from app.routing.probe_results import ProbeResult
from app.routing.probes import ProbeRules
from tests.app.routing.probe_range import HOUR, OFFER, Range, Shelf, opened_range


@pytest.fixture
async def range_(tmp_path: Path) -> AsyncIterator[Range]:
    async with opened_range(tmp_path / "turnpike.db") as found:
        yield found


class TestTurns:
    """When each offer is tried."""

    async def test_at_once_then_every_six_hours(self, range_: Range) -> None:
        prober = range_.prober()
        assert prober.due([OFFER]) == [OFFER]
        await prober.probe(OFFER)
        assert prober.due([OFFER]) == []
        range_.clock.advance(5 * HOUR)
        assert prober.due([OFFER]) == []
        range_.clock.advance(HOUR)
        assert prober.due([OFFER]) == [OFFER]

    async def test_hourly_while_it_fails_and_once_more_at_first(self, range_: Range) -> None:
        prober = range_.prober()
        range_.chatting.faults = {"stream": 500}
        for wait, failures in ((0, 1), (60, 2), (HOUR, 3), (HOUR, 4)):
            range_.clock.advance(max(0, wait - wait // 5))
            assert prober.due([OFFER]) == ([] if wait else [OFFER])
            range_.clock.advance(wait // 5)
            assert prober.due([OFFER]) == [OFFER]
            found = await prober.probe(OFFER)
            assert found is not None
            assert found.failures == failures
        range_.chatting.faults = {}
        range_.clock.advance(HOUR)
        found = await prober.probe(OFFER)
        assert found is not None
        assert (found.status, found.failures) == ("live", 0)
        range_.clock.advance(HOUR)
        assert prober.due([OFFER]) == []

    @pytest.mark.parametrize(
        ("age_s", "fails", "due"),
        [(60, False, False), (2 * HOUR, False, True), (60, True, True)],
    )
    async def test_after_a_restart(self, range_: Range, age_s: int, fails: bool, due: bool) -> None:
        range_.chatting.faults = {"stream": 500} if fails else {}
        await range_.probe()
        range_.clock.advance(age_s)
        prober = range_.prober()
        await prober.results.load()
        assert prober.due([OFFER]) == ([OFFER] if due else [])
        moved = replace(OFFER, upstream_id="another")
        assert prober.due([OFFER]) == ([OFFER] if due else [])
        fresh = range_.prober()
        await fresh.results.load()
        assert fresh.due([moved]) == [moved]

    async def test_who_is_left_out(self, range_: Range) -> None:
        prober = range_.prober(providers=frozenset({"acme", "local"}))
        offers = [replace(OFFER, provider=name) for name in ("acme", "beta", "local")]
        assert prober.due(offers) == offers[:1]
        prober.replace(ProbeRules(providers=frozenset({"beta"})))
        assert prober.due(offers) == offers[1:2]

    async def test_many_offers_drift_apart(self, range_: Range) -> None:
        prober = range_.prober()
        results = [
            ProbeResult(
                provider="acme", model=f"m{n}", upstream_id="m", checked_at_ms=0, status="live"
            )
            for n in range(200)
        ]
        waits = sorted(prober.interval(each) for each in results)
        assert 0.9 * 21_600 <= waits[0] < waits[-1] <= 21_600
        assert len(set(waits)) == 200
        assert waits[-1] - waits[0] > 0.08 * 21_600

    async def test_two_at_once_and_one_of_each_provider(self, range_: Range) -> None:
        offers = [
            replace(OFFER, provider=provider, model=f"acme/{n}")
            for provider in ("acme", "beta", "gamma")
            for n in range(4)
        ]
        prober = range_.prober(providers=frozenset({"acme", "beta", "gamma"}))
        range_.chatting.hold_at = "stream"
        running = asyncio.create_task(OfferProbes(prober, Shelf(offers), range_.clock).run())
        for _ in range(2):
            await asyncio.wait_for(range_.chatting.arrived.get(), 20)
        range_.chatting.go_on.set()
        await running
        assert range_.chatting.at_once_most == 2
        assert all(prober.results.of((each.provider, each.model)) for each in offers)
        assert prober.due(offers) == []

        range_.chatting.at_once_most = 0
        range_.clock.advance(6 * HOUR)
        await OfferProbes(prober, Shelf(offers[:4]), range_.clock).run()
        assert range_.chatting.at_once_most == 1

    async def test_rounds_try_what_is_new_and_what_has_its_turn(self, range_: Range) -> None:
        prober, shelf = range_.prober(), Shelf([OFFER])
        job = OfferProbes(prober, shelf, range_.clock)
        for _ in range(3):
            await job.run()
        assert range_.chatting.asked.count("stream") == 1
        shelf.put([OFFER, replace(OFFER, model="acme/new")])
        for _ in range(3):
            await job.run()
        assert range_.chatting.asked.count("stream") == 2
        range_.clock.advance(6 * HOUR)
        for _ in range(3):
            await job.run()
        assert range_.chatting.asked.count("stream") == 4
        shelf.put([replace(OFFER, provider="beta")])
        await job.run()
        prober.replace(ProbeRules(providers=frozenset({"beta"})))
        await job.run()
        assert range_.chatting.asked.count("stream") == 5

    async def test_a_fault_of_one_probe_does_not_end_the_round(
        self, range_: Range, caplog: pytest.LogCaptureFixture
    ) -> None:
        prober = range_.prober(providers=frozenset({"acme", "beta"}))
        await range_.database.close()
        offers = [OFFER, replace(OFFER, provider="beta")]
        await OfferProbes(prober, Shelf(offers), range_.clock).run()
        assert range_.chatting.asked.count("stream") == 2
        assert caplog.text.count("failed in itself") == 2
