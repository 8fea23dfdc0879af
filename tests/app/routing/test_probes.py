"""Offers are tried against a real server: what is found, what it does to health, who pays."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from app.jobs.probe_offers import OfferProbes
from app.ledger.audit import audit
from app.routing.health import Health
from app.routing.probe_checks import Heard, checks_of, verdict
from app.routing.probe_results import ProbeResults
from plugins.contract import Price, Produced
from plugins.tasks import Ranking
from tests.app.routing.probe_range import HOUR, KEY, OFFER, SECRET, Range, Shelf, opened_range


@pytest.fixture
async def range_(tmp_path: Path) -> AsyncIterator[Range]:
    async with opened_range(tmp_path / "turnpike.db") as found:
        yield found


class TestWhatIsFound:
    async def test_an_offer_that_can_do_everything(self, range_: Range) -> None:
        found = await range_.probe()
        assert range_.chatting.asked == ["stream", "tools", "json_schema", "json_object"]
        assert (found.status, found.reason, found.failures) == ("live", "", 0)
        assert found.supports_tools is True
        assert found.supports_structured_output is True
        assert found.supports_json_object is True
        assert found.reports_usage_in_streams is True
        assert found.first_token_latency_ms is not None
        assert found.throughput is not None
        assert 0 <= found.first_token_latency_ms < 5000
        assert found.throughput > 0
        assert found.checked_at_ms == range_.clock.now_ms()

    async def test_each_call_is_small_and_has_the_providers_key(self, range_: Range) -> None:
        await range_.probe()
        assert all(0 < body["max_tokens"] <= 256 for body in range_.chatting.bodies)
        assert all(body["model"] == "m" for body in range_.chatting.bodies)
        sent = {each.headers["authorization"] for each in range_.server.asked}
        assert sent == {f"Bearer {SECRET}"}

    @pytest.mark.parametrize(
        ("check", "field"),
        [
            ("tools", "supports_tools"),
            ("json_schema", "supports_structured_output"),
            ("json_object", "supports_json_object"),
        ],
    )
    async def test_an_ability_that_is_lacking(self, range_: Range, check: str, field: str) -> None:
        fields = ("supports_tools", "supports_structured_output", "supports_json_object")
        expected = {each: each != field for each in fields}
        range_.chatting.wrong = {check}
        found = await range_.probe()
        assert {each: getattr(found, each) for each in fields} == expected
        assert found.status == "live"
        range_.chatting.wrong, range_.chatting.faults = set(), {check: 400}
        found = await range_.probe()
        assert {each: getattr(found, each) for each in fields} == expected

    async def test_what_could_not_be_told_is_as_it_was(self, range_: Range) -> None:
        prober = range_.prober()
        found = await prober.probe(OFFER)
        assert found is not None
        assert (found.supports_tools, found.supports_structured_output) == (True, True)
        range_.chatting.cut = {"tools"}
        range_.chatting.faults = {"json_schema": 503}
        found = await prober.probe(OFFER)
        assert found is not None
        assert (found.supports_tools, found.supports_structured_output) == (True, True)
        fresh = await range_.prober().probe(OFFER)
        assert fresh is not None
        assert (fresh.supports_tools, fresh.supports_structured_output) == (None, None)

    async def test_usage_that_is_missing_from_streams(self, range_: Range) -> None:
        range_.chatting.usage_in_streams = False
        assert (await range_.probe()).reports_usage_in_streams is False

    async def test_a_parameter_that_the_offer_does_not_honour_is_not_tried(
        self, range_: Range
    ) -> None:
        offer = replace(OFFER, supported_params=frozenset({"max_completion_tokens"}))
        found = await range_.probe(offer)
        assert range_.chatting.asked == ["stream"]
        assert (found.supports_tools, found.supports_structured_output) == (False, False)
        (body,) = range_.chatting.bodies
        assert "max_tokens" not in body
        assert body["max_completion_tokens"] == 48

    @pytest.mark.parametrize("fault", [0, 500, 503, 404, 402, 400])
    async def test_an_offer_that_does_not_work(self, range_: Range, fault: int) -> None:
        range_.chatting.faults = {"stream": fault}
        for _ in range(4):
            range_.health.failed(KEY)
        found = await range_.probe()
        assert (found.status, found.failures) == ("error", 1)
        assert found.reason
        assert SECRET not in found.reason
        assert range_.chatting.asked == ["stream"]  # nothing else is paid for
        is_ill = fault in {0, 500, 503}
        assert range_.health.healthy(KEY) == (not is_ill)  # the fifth failure opens a circuit

    async def test_an_empty_answer(self, range_: Range) -> None:
        range_.chatting.wrong = {"stream"}
        found = await range_.probe()
        assert (found.status, found.first_token_latency_ms) == ("error", None)

    async def test_a_first_token_that_takes_too_long(self, range_: Range) -> None:
        range_.chatting.hold_at = "stream"
        probing = asyncio.create_task(range_.probe())
        await asyncio.wait_for(range_.chatting.held.wait(), 20)
        range_.clock.advance(7)
        range_.chatting.go_on.set()
        found = await probing
        assert found.status == "error"
        assert found.reason.startswith("the first token took 7.")
        assert found.first_token_latency_ms is not None
        assert 7000 <= found.first_token_latency_ms < 9000
        assert range_.health.figures(KEY).first_token_ms == found.first_token_latency_ms
        assert range_.health.healthy(KEY)  # slow, but it answers

    async def test_an_embedding_model(self, range_: Range) -> None:
        offer = replace(OFFER, tasks=("feature-extraction",))
        found = await range_.probe(offer)
        assert range_.chatting.asked == ["embedding"]
        assert (found.status, found.supports_tools, found.throughput) == ("live", None, None)
        range_.chatting.wrong = {"embedding"}
        assert (await range_.probe(offer)).status == "error"

    def test_a_reranking_model(self) -> None:
        (check,) = checks_of(replace(OFFER, tasks=("text-ranking",)))
        assert check.request.task == "text-ranking"
        heard = Heard(0)
        assert verdict(check, heard)[0] is False
        heard.take(Produced(Ranking(scores=[0.5])), 1)
        assert verdict(check, heard) == (True, "")

    @pytest.mark.parametrize(
        "task",
        ["text-to-image", "image-to-image", "text-to-video", "text-to-speech"],
    )
    async def test_what_is_dear_to_try_is_not_tried(self, range_: Range, task: str) -> None:
        prober = range_.prober()
        offer = replace(OFFER, tasks=(task, "automatic-speech-recognition"))
        assert await prober.probe(offer) is None
        assert range_.server.asked == []
        assert prober.due([offer]) == []


class TestHealthAndKeys:
    async def test_figures_reach_health_and_survive_a_restart(self, range_: Range) -> None:
        found = await range_.probe()
        figures = range_.health.figures(KEY)
        assert figures.first_token_ms == found.first_token_latency_ms
        assert figures.tokens_per_second == pytest.approx(found.throughput, abs=0.01)
        again, health = ProbeResults(range_.database, range_.clock), Health(range_.clock)
        assert again.of(KEY) is None
        await again.load(health)
        assert again.of(KEY) == found
        assert health.figures(KEY).tokens_per_second == found.throughput
        range_.clock.advance(31 * 24 * HOUR)
        stale = ProbeResults(range_.database, range_.clock)
        await stale.load()
        assert stale.of(KEY) is None

    async def test_a_success_closes_the_circuit(self, range_: Range) -> None:
        for _ in range(5):
            range_.health.failed(KEY)
        assert not range_.health.closed(KEY)
        await range_.probe()
        assert range_.health.healthy(KEY)

    async def test_a_limit_of_the_key_says_nothing_about_the_offer(self, range_: Range) -> None:
        prober = range_.prober()
        range_.chatting.faults = {"stream": 429}
        assert await prober.probe(OFFER) is None
        assert prober.results.of(KEY) is None
        assert range_.health.healthy(KEY)
        (state,) = range_.keys.states("acme")
        assert state.state == "resting"
        assert await prober.probe(OFFER) is None  # the key rests: nothing is sent
        assert len(range_.server.asked) == 1
        range_.chatting.faults = {}
        range_.clock.advance(61)
        assert prober.due([OFFER]) == [OFFER]
        assert (await prober.probe(OFFER)) is not None

    async def test_a_key_that_is_refused_rests(self, range_: Range) -> None:
        range_.chatting.faults = {"stream": 401}
        found = await range_.probe()
        assert (found.status, found.reason.startswith("auth")) == ("error", True)
        assert range_.keys.states("acme")[0].state == "refused"
        assert range_.health.healthy(KEY)


class TestWhoPays:
    async def test_the_house_pays_for_every_call_once(self, range_: Range) -> None:
        await range_.probe()
        assert await range_.rows(
            "SELECT provider, model, calls, input_tokens, output_tokens, cost_nano_usd"
            " FROM probe_costs"
        ) == [("acme", "acme/tiny", 4, 80, 40, 40_000)]
        for table in ("usage", "wallets", "holds", "settlements"):
            assert await range_.rows(f"SELECT count(*) FROM {table}") == [(0,)]
        found = await range_.database.write(audit)
        assert (found.problems, found.house["probes"]) == ([], -40_000)

    async def test_nothing_is_booked_for_what_is_free_or_failed(self, range_: Range) -> None:
        await range_.probe(replace(OFFER, price=Price(free=True)))
        range_.chatting.faults = {"stream": 500}
        await range_.probe()
        assert await range_.rows("SELECT count(*) FROM entries") == [(0,)]

    async def test_a_probe_that_is_cut_short_is_booked_for_what_it_used(
        self, range_: Range
    ) -> None:
        prober, chatting = range_.prober(), range_.chatting
        chatting.hold_at = "tools"
        job = OfferProbes(prober, Shelf([OFFER]), range_.clock)
        running = asyncio.create_task(job.run())
        await asyncio.wait_for(chatting.held.wait(), 20)
        running.cancel()
        await running
        assert await range_.rows("SELECT cost_nano_usd FROM probe_costs") == [(10_000,)]
        assert prober.results.of(KEY) is None

    async def test_an_absurd_bill_is_not_booked(
        self, range_: Range, caplog: pytest.LogCaptureFixture
    ) -> None:
        await range_.probe(replace(OFFER, price=Price(input=10**30)))
        assert await range_.rows("SELECT count(*) FROM entries") == [(0,)]
        assert "cannot be booked" in caplog.text


async def test_no_log_and_no_result_has_the_key(
    range_: Range, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in (0, 400, 401, 500):
        range_.chatting.faults = {"stream": fault}
        range_.clock.advance(HOUR)
        await range_.prober().probe(OFFER)
    assert SECRET not in caplog.text
    for (row,) in await range_.rows("SELECT CAST(result AS TEXT) FROM probe_results"):
        assert SECRET not in row
