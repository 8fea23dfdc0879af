"""Promise: a free user's credit cannot be overspent, and is usable to the end."""

import asyncio
import sqlite3
from pathlib import Path

import httpx

from tests.appliance import appliance
from tests.upstream.provider import PlayedProvider

CREDIT = 10_000_000  # $0.01: the same law as at $0.10, in a tenth of the time
CLIENTS = 64
CONFIG = """
[tiers.free]
monthly_credit_usd = "0.01"

[[providers]]
id = "mock"
plugin = "openai_compatible"
base_url = "{base_url}"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
price = {{ input = "0.60", output = "9.00" }}
context_length = 8192
"""
PER_INPUT, PER_OUTPUT = 600, 9_000  # nano-USD a token


async def spend_until_refused(
    client: httpx.AsyncClient, url: str, key: str, model: str = "acme/tiny"
) -> tuple[int, httpx.Response]:
    """One client in a loop; how many answers it got, and the refusal."""
    answers = 0
    while True:
        response = await client.post(
            url,
            json={
                "model": model,
                "messages": [{"role": "user", "content": "count to five"}],
                "max_tokens": 20,
            },
            headers={"Authorization": f"Bearer {key}"},
        )
        if response.status_code != 200:
            return answers, response
        answers += 1


async def test_sixty_four_clients_spend_the_credit_and_not_a_nano_more(tmp_path: Path) -> None:
    async with PlayedProvider() as provider:
        config = CONFIG.format(base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.user, "ann")
            limits = httpx.Limits(max_connections=CLIENTS)
            async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
                url = f"{running.base_url}/v1/chat/completions"
                ends = await asyncio.gather(
                    *(spend_until_refused(client, url, key) for _ in range(CLIENTS))
                )
            answered = sum(answers for answers, _ in ends)
            for _, refusal in ends:
                assert refusal.status_code == 402
                assert refusal.headers["x-should-retry"] == "false"
                assert refusal.json()["error"]["code"] == "insufficient_quota"
            (row,) = await asyncio.to_thread(running.usage, "user")
    booked = sum(
        PER_INPUT * b.prompt_tokens + PER_OUTPUT * b.completion_tokens for b in provider.books
    )
    assert len(provider.books) == answered == row["calls"]
    assert row["cost_nano_usd"] == booked <= CREDIT
    # What is left would not pay for one more call at its worst.
    worst = PER_INPUT * (110 + 256 + 16) + PER_OUTPUT * 20
    assert CREDIT - booked < worst
    database = sqlite3.connect(tmp_path / "data" / "turnpike.db")
    (posted, held, granted) = database.execute(
        "SELECT posted_nano_usd, held_nano_usd, granted_nano_usd FROM balances"
    ).fetchone()
    database.close()
    assert (posted, held, granted) == (booked, 0, CREDIT)


COMPUTE_CONFIG = """
[tiers.free]
monthly_credit_usd = "0.01"

[local]
hardware = { name = "cpu", price_usd_per_second = "0.01" }
[[local.models]]
id = "acme/fake"
source = "fake:tokens_per_second=400"
"""


async def test_compute_stops_at_the_credit_too(tmp_path: Path) -> None:
    """A second of compute is all there is; the engine itself ends answers at what is held."""
    with appliance(tmp_path / "data", COMPUTE_CONFIG) as running:
        key = await asyncio.to_thread(running.user, "ann")
        url = f"{running.base_url}/v1/chat/completions"
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            ends = await asyncio.gather(
                *(spend_until_refused(client, url, key, "acme/fake") for _ in range(8))
            )
        (row,) = await asyncio.to_thread(running.usage, "user")
    assert all(refusal.status_code == 402 for _, refusal in ends)
    assert row["calls"] == sum(answers for answers, _ in ends) > 0
    assert CREDIT * 0.85 <= row["cost_nano_usd"] <= CREDIT
