"""Promise: what /metrics says is what happened."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
OF_MOCK = {"provider": "mock", "model": "acme/tiny"}


class Scrape:
    """The samples of one look at /metrics."""

    def __init__(self, text: str) -> None:
        self._samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def of(self, name: str, labels: dict[str, str] | None = None, **more: str) -> float | None:
        """One sample by all its labels; None where there is none."""
        key = frozenset({**(labels or {}), **more}.items())
        return self._samples.get((f"turnpike_{name}", key), self._samples.get((name, key)))


async def scrape(running: RunningAppliance) -> Scrape:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answer = await http.get(f"{running.base_url}/metrics")
    assert answer.status_code == 200
    return Scrape(answer.text)


async def chat(running: RunningAppliance, key: str, model: str = "acme/tiny", **more: Any) -> int:
    answer = await asyncio.to_thread(running.chat, key, model, **more)
    return answer.status_code


async def test_calls_refusals_and_answers_are_counted(tmp_path: Path) -> None:
    async with PlayedProvider() as played:
        played.script("normal", "normal", Scene(status=400))
        tier = '[tiers.tiny]\nmonthly_credit_usd = "0.00"\n'
        config = tier + MOCK_PROVIDER.format(base_url=played.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            poor = await asyncio.to_thread(running.user, "tim", "tiny")
            before = await scrape(running)
            assert [
                await chat(running, key),
                await chat(running, key, stream=True),
                await chat(running, key),
                await chat(running, poor),
                await chat(running, "tp_nobody"),
                await chat(running, key, "acme/none"),
            ] == [200, 200, 400, 402, 401, 404]
            after = await scrape(running)

    assert after.of("calls_total", OF_MOCK, outcome="completed") == 2
    assert after.of("calls_total", OF_MOCK, outcome="failed") == 1
    assert after.of("failed_attempts_total", provider="mock", kind="bad_request") == 1
    assert after.of("calls_refused_total", status="402", code="insufficient_quota") == 1
    assert after.of("calls_refused_total", status="401", code="invalid_api_key") == 1
    assert after.of("calls_refused_total", status="404", code="model_not_found") == 1
    assert after.of("call_seconds_count", OF_MOCK) == 3
    assert after.of("first_token_seconds_count", OF_MOCK) == 1
    for first, expected in (("2xx", 3), ("4xx", 4), ("5xx", 0)):  # a scrape counts the one before
        counts = [each.of("http_responses_total", {"class": first}) for each in (before, after)]
        assert None not in counts
        assert counts[1] - counts[0] == expected  # type: ignore[operator]  # no None
    for name in ("ready", "journal_sound"):
        assert after.of(name) == 1
    assert after.of("holds_open") == after.of("oldest_hold_age_seconds") == 0
    commits = [each.of("ledger_commit_seconds_count") for each in (before, after)]
    assert (commits[1] or 0) >= (commits[0] or 0) + 6
    assert (after.of("database_bytes", file="wal") or 0) > 0
    assert (after.of("process_resident_memory_bytes") or 0) > 10_000_000
    assert (after.of("threads") or 0) >= 2
    assert (after.of("journal_check_age_seconds") or 0) < 60


async def test_an_open_hold_grows_older_until_its_call_ends(tmp_path: Path) -> None:
    async with PlayedProvider() as played:
        played.gate.clear()
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            first = asyncio.create_task(chat(running, key))
            await asyncio.sleep(0.6)
            second = asyncio.create_task(chat(running, key))
            async with asyncio.timeout(20):
                while (await scrape(running)).of("holds_open") != 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            found = await scrape(running)
            assert 0.5 < (found.of("oldest_hold_age_seconds") or 0) < 20
            assert found.of("calls_running") == 2
            played.gate.set()
            assert await first == await second == 200
            found = await scrape(running)
            assert found.of("holds_open") == found.of("oldest_hold_age_seconds") == 0


async def test_a_refused_key_and_an_open_circuit_are_told(tmp_path: Path) -> None:
    async with (
        PlayedProvider(always=Scene(status=401)) as strange,
        PlayedProvider(always=Scene(status=500)) as ill,
    ):
        provider = MOCK_PROVIDER.format(base_url=strange.base_url)
        other = MOCK_PROVIDER.replace('"mock"', '"ill"').replace("acme/tiny", "acme/ill")
        with appliance(
            tmp_path / "data", provider + other.format(base_url=ill.base_url)
        ) as running:
            key = await asyncio.to_thread(running.key)
            await chat(running, key)
            for _ in range(6):
                await chat(running, key, "acme/ill")
            found = await scrape(running)
    assert found.of("provider_keys", provider="mock", state="refused") == 1
    assert found.of("provider_keys", provider="ill", state="refused") == 0
    assert found.of("circuit_open", provider="ill", model="acme/ill") == 1
    assert found.of("circuit_open", provider="mock", model="acme/tiny") is None
