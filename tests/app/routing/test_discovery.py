"""What providers list becomes offers, by the rules of the configuration, and stays."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.config import parse
from app.gateway.adapters import Adapters
from app.jobs.discover_models import discover_models, sources_of
from app.routing.discovery import RETRY_SECONDS_MAX, Discoveries, Source, model_name
from app.routing.key_pools import KeyPools, ProviderKey
from app.storage.sqlite import SqliteDatabase
from plugins.contract import ModelEntry, Price
from tests.app.identity.rig import HandClock
from tests.app.routing.listing import Lister, ListingAdapter
from tests.upstreams.serving import Serving

SECRET = "sk-planted-5f2c"
SOURCE = Source(provider="acme", origin="listing", every_s=600.0)


@dataclass
class Found:
    """A played provider and the discoveries over it."""

    lister: Lister
    server: Serving
    database: SqliteDatabase
    clock: HandClock
    adapter: ListingAdapter
    keys: KeyPools
    changes: list[int] = field(default_factory=list)

    def over(self, source: Source = SOURCE) -> Discoveries:
        """Fresh discoveries, as after a start."""
        return Discoveries(
            self.database,
            self.clock,
            self.keys,
            Adapters({source.provider: self.adapter}),
            [source],
            lambda: self.changes.append(len(self.changes)),
        )

    async def named(self, source: Source = SOURCE) -> list[str]:
        """What is offered after one round."""
        discoveries = self.over(source)
        await discoveries.refresh()
        return [offer.model for offer in discoveries.offers("acme")]


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Found]:
    lister, clock = Lister(), HandClock()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Serving(lister.play))
        database = SqliteDatabase(tmp_path / "turnpike.db", clock)
        await database.open()
        stack.push_async_callback(database.close)
        adapter = ListingAdapter("acme", server.origin)
        await adapter.start()
        stack.push_async_callback(adapter.close)
        key = ProviderKey(provider="acme", name="first", secret=SECRET)
        yield Found(lister, server, database, clock, adapter, KeyPools([key], clock))


def listed(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"id": name, **more} for name in names]


async def test_what_is_listed_is_offered_with_its_price(found: Found) -> None:
    found.lister.models = [{"id": "acme/tiny", "input": 200, "output": 600, "context": 4096}]
    discoveries = found.over()
    assert discoveries.offers("acme") == discoveries.offers("another") == []
    await discoveries.refresh()
    (offer,) = discoveries.offers("acme")
    assert (offer.model, offer.provider, offer.upstream_id) == ("acme/tiny", "acme", "acme/tiny")
    assert (offer.price, offer.context_length) == (Price(input=200, output=600), 4096)
    assert found.lister.keys == [f"Bearer {SECRET}"]
    assert found.changes == [0]


async def test_asked_again_when_the_time_has_come_and_not_before(found: Found) -> None:
    found.lister.models = listed("one", input=1)
    discoveries = found.over()
    for seconds, asked in ((0, 1), (599, 1), (1, 2), (1, 2), (600, 3)):
        found.clock.advance(seconds)
        await discoveries.refresh()
        assert len(found.server.asked) == asked
    assert found.changes == [0]  # the same list again changes nothing
    found.lister.models = listed("one", "two", input=1)
    found.clock.advance(600)
    await discoveries.refresh()
    assert [offer.model for offer in discoveries.offers("acme")] == ["one", "two"]
    assert found.changes == [0, 1]


async def test_a_model_that_is_gone_is_offered_no_more(found: Found) -> None:
    found.lister.models = listed("one", "two", input=1)
    discoveries = found.over()
    await discoveries.refresh()
    found.lister.models = listed("two", input=1)
    found.clock.advance(600)
    await discoveries.refresh()
    assert [offer.model for offer in discoveries.offers("acme")] == ["two"]


@pytest.mark.parametrize("status", [500, 503, 401, 429, 404])
async def test_a_failure_keeps_what_was_found(
    found: Found, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    found.lister.models = listed("one", input=1)
    discoveries = found.over()
    await discoveries.refresh()
    found.lister.status = status
    for _ in range(3):
        found.clock.advance(600)
        await discoveries.refresh()
    assert [offer.model for offer in discoveries.offers("acme")] == ["one"]
    told = [each for each in caplog.records if "cannot be asked" in each.getMessage()]
    assert len(told) == 1
    assert SECRET not in caplog.text
    state = discoveries.state("acme")
    assert state is not None
    assert (state.models, state.failing is not None) == (1, True)


async def test_a_fault_of_the_plugin_keeps_what_was_found(
    found: Found, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ListingAdapter):
        async def discover(self, api_key: str | None) -> list[ModelEntry]:
            raise KeyError("a mistake")

    found.lister.models = listed("one", input=1)
    discoveries = found.over()
    await discoveries.refresh()
    found.adapter = Broken("acme", found.server.origin)
    again = found.over()
    await again.load()
    await again.refresh()
    assert [offer.model for offer in again.offers("acme")] == ["one"]
    state = again.state("acme")
    assert state is not None
    assert state.failing == "the plugin failed: KeyError"
    assert "a mistake" in caplog.text  # the log has all of it


async def test_a_reload_while_a_provider_is_asked(found: Found) -> None:
    found.lister.models = listed("one", input=1)
    discoveries = found.over()
    found.lister.go_on.clear()
    asking = asyncio.create_task(discoveries.refresh())
    await asyncio.wait_for(found.lister.came.wait(), 20)
    discoveries.replace([replace(SOURCE, origin="elsewhere")])
    found.lister.go_on.set()
    await asking
    assert discoveries.offers("acme") == []  # what was asked is not what is configured now
    assert await found.database.read("SELECT * FROM discovered_models") == []


async def test_a_key_that_is_refused_rests(found: Found) -> None:
    found.lister.status = 401
    await found.over().refresh()
    assert [each.state for each in found.keys.states("acme")] == ["refused"]
    await found.over().refresh()
    assert len(found.server.asked) == 1


async def test_a_failure_is_tried_again_sooner(found: Found) -> None:
    found.lister.status = 500
    discoveries = found.over(replace(SOURCE, every_s=80_000.0))
    await discoveries.refresh()
    found.lister.status, found.lister.models = 200, listed("one", input=1)
    found.clock.advance(int(RETRY_SECONDS_MAX))
    await discoveries.refresh()
    assert [offer.model for offer in discoveries.offers("acme")] == ["one"]


async def test_a_restart_without_the_provider_still_has_the_offers(found: Found) -> None:
    found.lister.models = [{"id": "one", "input": 7, "context": 100}, {"id": "two"}]
    await found.over().refresh()
    found.lister.status = 503
    again = found.over()
    await again.load()
    await again.refresh()
    one, two = again.offers("acme")
    assert (one.model, one.price, one.context_length) == ("one", Price(input=7), 100)
    assert two.price == Price()
    elsewhere = found.over(replace(SOURCE, origin="another plugin or address"))
    await elsewhere.load()
    assert elsewhere.offers("acme") == []


async def test_a_row_that_cannot_be_read_is_left_alone(found: Found) -> None:
    await found.database.write(
        lambda tx: tx.execute(
            "INSERT INTO discovered_models VALUES ('acme', 'listing', 1, ?)", (b"{",)
        )
    )
    discoveries = found.over()
    await discoveries.load()
    assert discoveries.offers("acme") == []


class TestWhatIsTaken:
    """Names, patterns, the configuration's own models."""

    async def test_names_are_made_to_fit_or_left_out(
        self, found: Found, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad = ["a b", "", "/x", "a/b/c/d", "é", "x" * 200, "a\nb"]
        found.lister.models = listed("llama3:8b", "llama3-8b", "org/m:free", *bad, input=1)
        assert await found.named() == ["llama3-8b", "org/m-free"]
        (line,) = [each.getMessage() for each in caplog.records if "left out" in each.getMessage()]
        assert "8 models" in line
        assert "\n" not in line

    async def test_the_upstream_name_stays_as_it_was(self, found: Found) -> None:
        found.lister.models = listed("llama3:8b", input=1)
        discoveries = found.over()
        await discoveries.refresh()
        assert discoveries.offers("acme")[0].upstream_id == "llama3:8b"

    async def test_patterns(self, found: Found) -> None:
        found.lister.models = listed("org/a", "org/b-preview", "other/c", input=1)
        assert await found.named(replace(SOURCE, only=("org/*",))) == ["org/a", "org/b-preview"]
        source = replace(SOURCE, only=("org/*",), ignore=("*-preview",))
        assert await found.named(source) == ["org/a"]
        assert await found.named(replace(SOURCE, ignore=("*",))) == []

    async def test_the_configuration_wins_by_either_name(self, found: Found) -> None:
        found.lister.models = listed("org/a", "m", "org/c", input=1)
        source = replace(SOURCE, configured=frozenset({"org/a", "acme/tiny", "m"}))
        assert await found.named(source) == ["org/c"]


class TestPrices:
    """The provider's word, else the configuration's, else none."""

    async def price(self, found: Found, source: Source, **said: int) -> Price:
        found.lister.models = listed("one", **said)
        discoveries = found.over(source)
        await discoveries.refresh()
        return discoveries.offers("acme")[0].price

    async def test_in_that_order(self, found: Found) -> None:
        ours = Price(input=5)
        assert await self.price(found, SOURCE) == Price()
        assert await self.price(found, replace(SOURCE, price=ours)) == ours
        said = {"input": 3, "output": 4}
        expected = Price(input=3, output=4)
        assert await self.price(found, replace(SOURCE, price=ours), **said) == expected
        gift = replace(SOURCE, price=Price(free=True), as_billed=True)
        assert await self.price(found, gift) == Price(free=True)
        billed = replace(SOURCE, price=ours, as_billed=True)
        assert await self.price(found, billed) == Price(input=5, as_billed=True)
        assert await self.price(found, billed, **said) == replace(expected, as_billed=True)

    @pytest.mark.parametrize("absurd", [-1, 10**16])
    async def test_an_absurd_price_is_none(self, found: Found, absurd: int) -> None:
        assert await self.price(found, SOURCE, input=absurd, output=1) == Price()
        found.lister.models = listed("one", input=1, context=absurd)
        discoveries = found.over()
        await discoveries.refresh()
        assert discoveries.offers("acme")[0].context_length is None


async def test_a_new_configuration_keeps_what_was_found_at_the_same_place(found: Found) -> None:
    found.lister.models = listed("one", "two", input=1)
    discoveries = found.over()
    await discoveries.refresh()
    discoveries.replace([replace(SOURCE, ignore=("two",))])
    assert [offer.model for offer in discoveries.offers("acme")] == ["one"]
    discoveries.replace([replace(SOURCE, origin="elsewhere")])
    assert discoveries.offers("acme") == []
    discoveries.replace([])
    assert discoveries.offers("acme") == []
    assert discoveries.state("acme") is None


async def test_the_job_goes_on_whatever_happens(
    found: Found, caplog: pytest.LogCaptureFixture
) -> None:
    found.lister.models = listed("one", input=1)
    discoveries = found.over()

    def broken() -> None:
        raise RuntimeError("the catalog is broken")

    discoveries.changed = broken
    await discover_models(discoveries)
    assert "the next round comes" in caplog.text
    assert [offer.model for offer in discoveries.offers("acme")] == ["one"]


def test_sources_of_a_configuration() -> None:
    discover = {"price": {"input": "0.20", "output": "0.60"}, "only": ["a/*"]}
    model = {"id": "acme/tiny", "upstream_id": "m", "free": True}
    provider = {"id": "acme", "plugin": "echo", "base_url": "http://x/v1", "trust_cost": True}
    config = parse(
        {
            "providers": [
                {**provider, "discover": discover, "models": [model]},
                {"id": "gift", "plugin": "echo", "discover": {"free": True, "every_seconds": 5}},
                {"id": "quiet", "plugin": "echo"},
            ]
        },
        source="test",
    )
    assert sources_of(config) == [
        Source(
            provider="acme",
            origin="echo http://x/v1",
            every_s=3600.0,
            price=Price(input=200_000_000, output=600_000_000),
            as_billed=True,
            only=("a/*",),
            configured=frozenset({"acme/tiny", "m"}),
        ),
        Source(provider="gift", origin="echo ", every_s=5.0, price=Price(free=True)),
    ]


def test_another_setting_is_another_origin() -> None:
    def origin(**settings: Any) -> str:
        provider = {"id": "acme", "plugin": "echo", "settings": settings, "discover": {}}
        (source,) = sources_of(parse({"providers": [provider]}, source="test"))
        return source.origin

    assert origin() == "echo "
    assert origin(region="eu") == origin(region="eu") != origin(region="us")
    assert "region" not in origin(region="eu")


@given(st.text(max_size=120))
def test_a_name_is_one_of_ours_or_none(said: str) -> None:
    name = model_name(said)
    if name is not None:
        assert ":" not in name
        assert model_name(name) == name
        parse(
            {"providers": [{"id": "p", "plugin": "echo", "models": [{"id": name, "free": True}]}]},
            source="test",
        )


def test_it_says_when_a_plugin_cannot_ask(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    database = SqliteDatabase(tmp_path / "turnpike.db", clock)
    with caplog.at_level(logging.WARNING):
        Discoveries(database, clock, KeyPools([], clock), Adapters({}), [SOURCE])
    assert "acme: its plugin cannot ask" in caplog.text
