"""One list of models for OpenAI's, Hugging Face's, Anthropic's and Codex's clients."""

import asyncio
import logging
import time
from typing import Any, cast

import msgspec
import pytest
from openai.types import Model

from app.api.openai.models import KEPT_LENGTH_MIN, Models
from app.errors import InvalidRequest, NotFound
from app.identity.principal import Principal
from app.routing.catalog import Catalog
from app.routing.health import Health
from app.routing.probe_results import ProbeResult
from plugins.contract import ModelEntry, Price, Toolbox
from plugins.echo.plugin import PLUGIN
from plugins.http.fetch import Fetcher
from tests.app.identity.rig import HandClock

ANYBODY = Principal(user_id="u", user_name="u", key_id="k")
PRICE = Price(input=200_000_000, output=600_000_000)
ANTHROPIC = {"anthropic-version": "2023-06-01"}


def entry(name: str, **fields: Any) -> ModelEntry:
    return ModelEntry(**{"id": name, "upstream_id": name, "price": PRICE, **fields})


class Seen(dict[tuple[str, str], ProbeResult]):
    """What probes found, as a test says."""

    def of(self, key: tuple[str, str]) -> ProbeResult | None:
        return self.get(key)


class Shop:
    """The route's handler over a real catalog of echo providers."""

    def __init__(self, **providers: list[ModelEntry]) -> None:
        self.clock = HandClock()
        self.health = Health(self.clock)
        self.probed = Seen()
        adapters = {
            name: PLUGIN.build(
                PLUGIN.settings(),
                Toolbox(
                    provider_id=name,
                    models=tuple(models),
                    log=logging.getLogger("test"),
                    monotonic_ns=self.clock.monotonic_ns,
                    user_agent="test",
                    fetch=Fetcher((), "test"),
                ),
            )
            for name, models in providers.items()
        }
        self.catalog = Catalog(adapters, self.clock.now_ms())
        self.models = Models(self.catalog, self.health, self.clock, self.probed)

    async def raw(self, path: str = "", query: str = "", **headers: str) -> bytes:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "raw_path": f"/v1/models{path}".encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        await self.models(cast(Any, scope), cast(Any, None), send, ANYBODY)
        assert sent[0]["status"] == 200
        return b"".join(message.get("body", b"") for message in sent[1:])

    async def get(self, path: str = "", query: str = "", **headers: str) -> Any:
        return msgspec.json.decode(await self.raw(path, query, **headers))

    async def provider(self, model: str) -> dict[str, Any]:
        """The only provider of a model."""
        (found,) = (await self.get(f"/{model}"))["providers"]
        assert isinstance(found, dict)
        return found


def result(**fields: Any) -> ProbeResult:
    known = {"provider": "acme", "model": "acme/tiny", "upstream_id": "m", "checked_at_ms": 1}
    return ProbeResult(**{**known, "status": "live", **fields})


class TestTheRoutersShape:
    async def test_what_is_known_is_there_and_nothing_else(self) -> None:
        shop = Shop(acme=[entry("acme/tiny", supported_params=None)], beta=[entry("x")])
        offered = {"provider": "acme", "status": "live", "is_model_author": False}
        pricing = {"input": 0.2, "output": 0.6}
        abilities = {"supports_tools": False, "supports_structured_output": False}
        listed = await shop.get()
        assert set(listed) == {"object", "data"}
        assert listed["object"] == "list"
        first, second = listed["data"]
        assert first == {
            "id": "acme/tiny",
            "object": "model",
            "created": shop.clock.now_ms() // 1000,
            "owned_by": "acme",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "providers": [{**offered, "pricing": pricing, **abilities}],
        }
        assert second["owned_by"] == "beta"
        assert await shop.get("/acme/tiny") == first
        assert await shop.get("/acme%2Ftiny") == first
        assert Model.model_validate(first).id == "acme/tiny"

    async def test_everything_that_can_be_known(self) -> None:
        model = entry(
            "acme/tiny",
            context_length=8192,
            is_model_author=True,
            price=Price(free=True),
            supported_params=frozenset({"tools", "structured_outputs"}),
            input_modalities=frozenset({"image", "text"}),
        )
        shop = Shop(acme=[model])
        shop.health.measured(("acme", "acme/tiny"), 123.4, 56.789)
        assert await shop.provider("acme/tiny") == {
            "provider": "acme",
            "status": "live",
            "context_length": 8192,
            "pricing": {"input": 0.0, "output": 0.0},
            "is_free": True,
            "supports_tools": True,
            "supports_structured_output": True,
            "first_token_latency_ms": 123,
            "throughput": 56.79,
            "is_model_author": True,
        }
        found = await shop.get("/acme/tiny")
        assert found["architecture"]["input_modalities"] == ["text", "image"]

    async def test_all_providers_of_a_model_are_in_one_object(self) -> None:
        shop = Shop(acme=[entry("m")], beta=[entry("m"), entry("n")])
        listed = await shop.get()
        assert [
            (each["id"], [one["provider"] for one in each["providers"]]) for each in listed["data"]
        ] == [("m", ["acme", "beta"]), ("n", ["beta"])]

    @pytest.mark.parametrize(
        ("tasks", "reads", "makes"),
        [
            (("feature-extraction",), ["text"], ["embedding"]),
            (("text-ranking",), ["text"], ["scores"]),
            (("text-to-image", "image-to-image"), ["text", "image"], ["image"]),
            (("text-to-video",), ["text"], ["video"]),
            (("automatic-speech-recognition",), ["audio"], ["text"]),
            (("text-to-speech",), ["text"], ["audio"]),
            (("conversational", "text-to-image"), ["text"], ["text", "image"]),
        ],
    )
    async def test_architecture_follows_from_the_tasks(
        self, tasks: tuple[str, ...], reads: list[str], makes: list[str]
    ) -> None:
        shop = Shop(acme=[entry("m", tasks=tasks)])
        assert (await shop.get("/m"))["architecture"] == {
            "input_modalities": reads,
            "output_modalities": makes,
        }
        assert ("supports_tools" in await shop.provider("m")) == ("conversational" in tasks)

    async def test_an_unknown_model(self) -> None:
        shop = Shop(acme=[entry("m")])
        for headers in ({}, ANTHROPIC):
            with pytest.raises(NotFound):
                await shop.get("/nothing", **headers)


class TestWhatProbesAndCallsSay:
    async def test_status(self) -> None:
        shop = Shop(acme=[entry("acme/tiny")])
        shop.probed["acme", "acme/tiny"] = result(status="error", reason="x", failures=1)
        assert (await shop.provider("acme/tiny"))["status"] == "error"
        shop.probed["acme", "acme/tiny"] = result()
        assert (await shop.provider("acme/tiny"))["status"] == "live"
        for _ in range(5):
            shop.health.failed(("acme", "acme/tiny"))
        assert (await shop.provider("acme/tiny"))["status"] == "error"

    @pytest.mark.parametrize("said", [True, False])
    @pytest.mark.parametrize("seen", [True, False, None])
    async def test_what_was_seen_wins_over_what_was_said(
        self, said: bool, seen: bool | None
    ) -> None:
        params = frozenset({"tools", "structured_outputs"}) if said else frozenset({"stop"})
        shop = Shop(acme=[entry("acme/tiny", supported_params=params)])
        shop.probed["acme", "acme/tiny"] = result(
            supports_tools=seen, supports_structured_output=seen
        )
        found = await shop.provider("acme/tiny")
        expected = said if seen is None else seen
        assert found["supports_tools"] is expected
        assert found["supports_structured_output"] is expected


class TestAnthropicsShape:
    def shop(self) -> Shop:
        names = [entry(f"m{n}") for n in range(25)]
        return Shop(acme=[*names, entry("picture", tasks=("text-to-image",))])

    async def test_a_model(self) -> None:
        found = await self.shop().get("/m3", **ANTHROPIC)
        assert found == {
            "type": "model",
            "id": "m3",
            "display_name": "m3",
            "created_at": "1970-01-01T00:00:00Z",
        }

    async def test_all_pages_there_and_back(self) -> None:
        shop, seen, query = self.shop(), [], "limit=10"
        for _ in range(3):
            page = await shop.get("", query, **ANTHROPIC)
            assert (page["first_id"], page["last_id"]) == (
                page["data"][0]["id"],
                page["data"][-1]["id"],
            )
            seen += [each["id"] for each in page["data"]]
            assert page["has_more"] == (len(seen) < 25)
            query = f"limit=10&after_id={page['last_id']}"
        assert seen == [f"m{n}" for n in range(25)]  # no pictures: these clients only converse
        page = await shop.get("", "limit=10&before_id=m24", **ANTHROPIC)
        assert ([each["id"] for each in page["data"]], page["has_more"]) == (seen[14:24], True)
        page = await shop.get("", "limit=10&before_id=m3", **ANTHROPIC)
        assert ([each["id"] for each in page["data"]], page["has_more"]) == (seen[:3], False)

    async def test_bounds(self) -> None:
        shop = self.shop()
        assert len((await shop.get("", "", **ANTHROPIC))["data"]) == 20
        assert len((await shop.get("", "limit=1000", **ANTHROPIC))["data"]) == 25
        page = await shop.get("", "after_id=m24", **ANTHROPIC)
        assert page == {"data": [], "has_more": False, "first_id": None, "last_id": None}
        for query in (
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=-1",
            "limit=99999999999999999999",
            "after_id=nothing",
            "before_id=picture",
            "after_id=m1&before_id=m3",
            "&".join(f"a{n}=1" for n in range(50)),
        ):
            with pytest.raises(InvalidRequest):
                await shop.get("", query, **ANTHROPIC)


async def test_codex_gets_an_empty_list_of_its_own() -> None:
    shop = Shop(acme=[entry("m")])
    plain = await shop.get()
    assert await shop.get("", "client_version=0.145.0") == {**plain, "models": []}


async def test_no_models_at_all() -> None:
    shop = Shop()
    assert await shop.get() == {"object": "list", "data": []}
    assert (await shop.get("", "", **ANTHROPIC))["data"] == []


class TestTenThousandOffers:
    async def test_others_go_on_while_the_list_is_made(self) -> None:
        providers = {f"p{n}": [entry(f"org/m{m}") for m in range(2500)] for n in range(4)}
        shop = Shop(**providers)
        turns, longest = 0, 0.0
        done = asyncio.Event()

        async def others() -> None:
            nonlocal turns, longest
            while not done.is_set():
                began = time.perf_counter()
                await asyncio.sleep(0)
                turns, longest = turns + 1, max(longest, time.perf_counter() - began)

        running = asyncio.create_task(others())
        began = time.perf_counter()
        listed = await shop.raw()
        took = time.perf_counter() - began
        done.set()
        await running
        assert turns >= 20
        assert longest < took / 3  # no slice is the most of it, however slow the machine
        data = msgspec.json.decode(listed)["data"]
        assert [each["id"] for each in data] == [f"org/m{m}" for m in range(2500)]
        assert sum(len(each["providers"]) for each in data) == 10_000

    async def test_a_long_list_is_kept_for_a_moment(self) -> None:
        shop = Shop(acme=[entry(f"m{n}") for n in range(KEPT_LENGTH_MIN)])
        first, second = await asyncio.gather(shop.raw(), shop.raw())
        assert first == second
        for _ in range(5):
            shop.health.failed(("acme", "m7"))
        assert await shop.raw() == first
        shop.clock.advance(3)
        changed = (await shop.get())["data"]
        assert [each["id"] for each in changed if each["providers"][0]["status"] == "error"] == [
            "m7"
        ]
        shop.clock.wall_ms += 1000
        shop.catalog.rebuild(shop.clock.now_ms())  # a new catalog is listed at once
        created = {each["created"] for each in (await shop.get())["data"]}
        assert created == {shop.clock.now_ms() // 1000}
