"""Promise (I12): however many providers fail on the way, a call is charged once: what the one that
delivered it bills. Five providers at five prices follow random fault scripts; their books witness.

``TURNPIKE_FAULT_CALLS`` sets how many calls, ``TURNPIKE_SEED`` replays.
"""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.appliance import appliance
from tests.journeys.callers import Caller, Heard, chat, seed_of_run
from tests.journeys.ledger_file import CallRow, LedgerFile
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.rates import Rates
from tests.upstreams.scenes import Booked, JsonObject, Scene

CALLS = int(os.environ.get("TURNPIKE_FAULT_CALLS", "5000"))
ATTEMPTS_MAX = 3
PROMPT = "one two three four"
RATES = {
    f"p{number}": Rates(input=100 + 7 * number, output=500 + 13 * number, per_request=11 * number)
    for number in range(5)
}
# Without refused and limited keys: those rest, and soon nobody would be asked any more.
EARLY = (
    *("server_error", "unavailable", "overloaded", "gateway_timeout", "not_found"),
    *("html", "garbage", "redirect", "gzip", "error_in_200", "reset_at_once", "error_first"),
)
PROVIDER = """
[[providers]]
id = "{id}"
plugin = "openai_compatible"
base_url = "{base_url}"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
{price}
"""


def fate(seed: int, provider: str, request: JsonObject) -> Scene | str:
    """What befalls this request at this provider: the same however often one asks."""
    chance = random.Random(f"{seed} {provider} {request['user']}")
    kind = chance.random()
    if kind < 0.35:
        return chance.choice(EARLY)
    if kind < 0.5:
        cut = {
            chance.choice(("reset_after", "close_after", "garbage_after")): chance.randint(0, 3000)
        }
        return Scene(name="breaks", words=20, **cut)  # type: ignore[arg-type]  # numbers all
    usage = chance.choice(("first", "last", "every"))
    return Scene(name="good", words=chance.randint(1, 20), usage=usage)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(60 + CALLS // 10)
async def test_five_unreliable_providers_are_paid_for_what_one_delivered(tmp_path: Path) -> None:
    chance = seed_of_run()
    seed = chance.randrange(2**32)
    waiting = [(f"c{number}", chance.random() < 0.6) for number in range(CALLS)]
    heard: dict[str, Heard] = {}
    async with AsyncExitStack() as stack:
        providers = {}
        for name in RATES:
            played = PlayedProvider(choose=lambda request, name=name: fate(seed, name, request))  # type: ignore[misc]
            providers[name] = await stack.enter_async_context(played)
        config = "[routing]\nprobes = false\n" + "".join(
            PROVIDER.format(id=name, base_url=each.base_url, price=RATES[name].toml())
            for name, each in providers.items()
        )
        running = stack.enter_context(appliance(tmp_path / "data", config))
        key = await asyncio.to_thread(running.user, "ann", "pro")

        async def client() -> None:
            caller = Caller(running.base_url, key)
            while waiting:
                tag, stream = waiting.pop()
                heard[tag] = await caller.ask(chat(PROMPT, stream=stream, user=tag, max_tokens=50))
            caller.drop()

        await asyncio.gather(*(client() for _ in range(32)))
        ledger = LedgerFile(running.data_dir)
        await ledger.settled()
        calls, house = ledger.calls(), ledger.check()
    books: dict[str, dict[str, Booked]] = {tag: {} for tag in heard}
    for name, played in providers.items():
        for booked in played.books:
            books[booked.request["user"]][name] = booked
    for tag, answer in heard.items():
        check_call(answer, calls.pop(answer.call_id), books[tag])
    assert calls == {}
    assert house["overrun"] == 0
    assert len({name for met in books.values() for name in met}) == 5


def check_call(answer: Heard, row: CallRow, met: dict[str, Booked]) -> None:
    """One call against the books of the providers that it met."""
    assert row.attempts == len(met) <= ATTEMPTS_MAX
    good = [name for name, booked in met.items() if booked.scene == "good"]
    whole = answer.status == 200 and (not answer.body.startswith(b"data:") or answer.done)
    if whole:
        delivered = met[row.provider]
        assert row.cost == delivered.bill(RATES[row.provider])
        assert good in ([row.provider], [])  # a break behind the end goes unnoticed
        return
    assert good == [], "a good answer was not passed on"
    assert answer.error is not None
    assert answer.error["code"] in ("upstream_unavailable", "overloaded", "upstream_timeout")
    text = answer.text if answer.status == 200 else ""
    if text:
        prompt, output = -(-len(PROMPT) // 4), -(-len(text) // 4)
        assert (row.outcome, row.cost) == (
            "failed_partial",
            RATES[row.provider].bill(prompt, output),
        )
    else:
        assert (row.outcome, row.cost) == ("failed", 0)
