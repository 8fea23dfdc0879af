"""Promise: what a key, a user or an org is confined to holds whatever a request says and whatever
fails. A provider without the label is a canary: it sells everything, cheaper than all others, and
must not even be connected to.

``TURNPIKE_SEED`` replays the requests of a run.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.appliance import RunningAppliance, appliance
from tests.journeys.callers import seed_of_run
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import JsonObject, Scene

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

REQUESTS = 400
CONFIG = """
[routing]
probes = false
default_policy = "preferred"
preferred = ["canary", "vault"]
hedge_after_seconds = 0.02
[routing.aliases]
gpt-4o = "acme/both:canary"
house = "acme/canary-only"
sneaky = "house:fastest"
[local]
placement = "inline"
[[local.models]]
id = "acme/home"
source = "fake:"
engine = "fake"
[[providers]]
id = "canary"
plugin = "openai_compatible"
base_url = "{canary}"
api_key = "env:TP_CANARY_KEY"
labels = ["elsewhere", "no_training"]
{canary_models}
[[providers]]
id = "vault"
plugin = "openai_compatible"
base_url = "{vault}"
api_key = "env:TP_VAULT_KEY"
labels = ["vault", "zdr"]
first_event_seconds_max = 2.0
{vault_models}
"""
MODEL = """[[providers.models]]
id = "{id}"
tasks = ["{task}"]
price = {{ input = "{price}", output = "{price}" }}
"""
CHAT = "conversational"
TASKS = {
    "acme/vectors": ("feature-extraction", "/v1/embeddings", {"input": "two words"}),
    "acme/painter": ("text-to-image", "/v1/images/generations", {"prompt": "a cat"}),
    "acme/speaker": ("text-to-speech", "/v1/audio/speech", {"input": "hello", "voice": "alloy"}),
    "acme/filmer": ("text-to-video", "/v1/videos", {"prompt": "a cat"}),
}
CHATS = ("acme/both", "acme/home", "acme/canary-only", "gpt-4o", "house", "sneaky", "acme/vault")
SUFFIXES = ("", "", ":canary", ":vault", ":local", ":fastest", ":cheapest", ":preferred")
FAULTS = ("server_error", "unavailable", "reset_at_once", "garbage", "not_found", "html")


def models(price: str, *chats: str) -> str:
    lines = [MODEL.format(id=name, task=CHAT, price=price) for name in chats]
    lines += [MODEL.format(id=name, task=task, price=price) for name, (task, *_) in TASKS.items()]
    return "".join(lines)


class Who(NamedTuple):
    """A caller, and the providers that they may reach."""

    name: str
    key: str
    org: str
    may: frozenset[str]


class Town(NamedTuple):
    running: RunningAppliance
    canary: PlayedProvider
    vault: PlayedProvider
    confined: list[Who]
    free: Who


def fate(request: JsonObject) -> Scene | str:
    """Half of what the vault is asked goes wrong, some of it late."""
    chance = random.Random(json.dumps(request["messages"]))
    kind = chance.random()
    if kind < 0.4:
        return chance.choice(FAULTS)
    return Scene(name="good", wait_s=0.05 if kind < 0.6 else 0.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    data_dir: Path = tmp_path_factory.mktemp("confined") / "data"
    async with PlayedProvider() as canary, PlayedProvider(choose=fate) as vault:
        sold = ("acme/both", "acme/canary-only", "acme/home", "acme/vault")
        config = CONFIG.format(
            canary=canary.base_url,
            vault=vault.base_url,
            canary_models=models("0.01", *sold),
            vault_models=models("1", "acme/both", "acme/vault"),
        )
        env = {"TP_CANARY_KEY": "operators-at-canary", "TP_VAULT_KEY": "operators-at-vault"}
        started = appliance(data_dir, config, env=env)
        running = await asyncio.to_thread(started.__enter__)
        try:
            yield Town(running, canary, vault, *(await asyncio.to_thread(settle_in, running)))
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)


def settle_in(running: RunningAppliance) -> tuple[list[Who], Who]:
    """A confined key, a confined user and a confined org; all have keys of their own for the
    canary and would like it best. And one who may go anywhere."""
    keys = {name: running.user(name, "pro") for name in ("kim", "una", "ora", "fred")}
    running.cli("orgs", "add", "works", "--tier", "team", "--admin", "ora")
    running.cli("confine", "--key", keys["kim"], "local")
    running.cli("confine", "--user", "una", "vault", "local")
    running.cli("confine", "--org", "works", "zdr")
    for name, key in keys.items():
        running.cli("preferred", "set", name, "canary", "vault")
        if name == "fred":
            continue
        with client(running, key) as http:
            secret = {"secret": f"{name}s-own-key", "paid_fallback": name != "kim"}
            assert http.put("/api/provider-keys/canary", json=secret).is_success
            if name == "ora":
                of_org = "/api/orgs/works/provider-keys/canary"
                assert http.put(of_org, json=secret).is_success
    confined = [
        Who("kim", keys["kim"], "", frozenset({"local"})),
        Who("una", keys["una"], "", frozenset({"local", "vault"})),
        Who("ora", keys["ora"], "works", frozenset({"vault"})),
    ]
    return confined, Who("fred", keys["fred"], "", frozenset({"canary", "vault", "local"}))


def client(running: RunningAppliance, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=running.base_url, headers=headers, timeout=60, trust_env=False)


def name_of_model(chance: random.Random) -> str:
    return chance.choice(CHATS) + chance.choice(SUFFIXES)


def wish(chance: random.Random) -> dict[str, Any]:
    """Some of the routing object, as far towards the canary as it goes."""
    fields: dict[str, Any] = {
        "order": [["canary"], ["canary", "vault"], ["vault", "canary"]],
        "only": [["canary"], ["canary", "vault", "local"]],
        "ignore": [["vault"], ["local"], ["vault", "local"]],
        "allow_fallbacks": [True, False],
        "require_parameters": [True, False],
        "data_collection": ["allow", "deny"],
        "zdr": [False],
        "sort": ["price", "throughput", "latency", {"by": "price", "partition": "none"}],
        "max_price": [{"prompt": 0.02, "completion": 0.02}],
        "preferred_min_throughput": [1],
        "preferred_max_latency": [60],
        "hedge": [{"after_ms": 1}],
    }
    chosen = chance.sample(sorted(fields), chance.randint(0, 4))
    return {field: chance.choice(fields[field]) for field in chosen}


def request_of(chance: random.Random, number: int, who: Who) -> tuple[str, Any, dict[str, str]]:
    """A path, a body and headers."""
    headers = {"X-HF-Bill-To": who.org} if who.org else {}
    if not who.org and chance.random() < 0.1:
        headers["X-HF-Bill-To"] = chance.choice((who.name, "works"))
    for name, value in (
        ("X-Turnpike-Explain", "1"),
        ("X-OpenRouter-Metadata", "enabled"),
        ("X-Inference-Provider", "canary"),
        ("X-Forwarded-For", "127.0.0.1"),
    ):
        if chance.random() < 0.2:
            headers[name] = value
    body: dict[str, Any] = {}
    if chance.random() < 0.5:
        body["provider"] = wish(chance)
    if chance.random() < 0.15:
        model = chance.choice(sorted(TASKS))
        _, path, more = TASKS[model]
        return path, {"model": model + chance.choice(SUFFIXES), **more, **body}, headers
    if chance.random() < 0.4:
        body["models"] = [name_of_model(chance) for _ in range(chance.randint(1, 4))]
    params = {"temperature": 0.5, "seed": 7, "user": "u", "max_tokens": 20}
    body |= {name: each for name, each in params.items() if chance.random() < 0.2}
    messages = [{"role": "user", "content": f"hello {number}"}]
    model, stream = name_of_model(chance), chance.random() < 0.5
    return (
        "/v1/chat/completions",
        {"model": model, "messages": messages, "stream": stream, **body},
        headers,
    )


async def test_nothing_that_is_asked_leads_past_a_confinement(town: Town) -> None:
    chance = seed_of_run()
    asked = [
        (who, *request_of(chance, number, who))
        for number in range(REQUESTS)
        for who in (town.confined[number % 3],)
    ]
    assert len(asked) >= 200
    seen: Counter[int] = Counter()
    served: Counter[tuple[str, str]] = Counter()
    waiting = list(asked)
    async with httpx.AsyncClient(
        base_url=town.running.base_url, timeout=60, trust_env=False
    ) as http:

        async def some() -> None:
            while waiting:
                who, path, body, headers = waiting.pop()
                headers = {"Authorization": f"Bearer {who.key}", **headers}
                answer = await http.post(path, json=body, headers=headers)
                seen[answer.status_code] += 1
                assert answer.status_code < 500 or answer.status_code in (502, 503, 504), body
                by = answer.headers.get("x-inference-provider")
                if by is not None:
                    served[who.name, by] += 1
                    assert by in who.may, (who, path, body)

        await asyncio.gather(*(some() for _ in range(8)))
    assert town.canary.connections_total == 0, "somebody got past"
    assert town.canary.books == []
    # The requests were real: most kinds of ends were met, each caller was served where they may.
    assert seen[200] > 30, seen
    assert seen[403] > 30, seen
    for who in town.confined:
        for provider in who.may:
            assert served[who.name, provider] > 0, served
    assert any(booked.status >= 500 for booked in town.vault.books), "faults were met"
    await check_that_others_reach_it(town, chance)


async def check_that_others_reach_it(town: Town, chance: random.Random) -> None:
    """The control: who is not confined gets to the canary with the same kind of requests."""
    async with httpx.AsyncClient(
        base_url=town.running.base_url, timeout=60, trust_env=False
    ) as http:
        for number in range(40):
            path, body, headers = request_of(chance, number, town.free)
            headers |= {"Authorization": f"Bearer {town.free.key}"}
            await http.post(path, json=body, headers=headers)
    assert len(town.canary.books) > 5


async def test_who_is_refused_is_told_why(town: Town) -> None:
    body = {"model": "acme/canary-only", "messages": [{"role": "user", "content": "hi"}]}
    with client(town.running, town.confined[0].key) as http:
        answer = await asyncio.to_thread(http.post, "/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "confined")
    assert "local" in error["message"]
    found = error["availability"]
    assert (found["code"], found["excluded_by"]) == ("privacy_restricted", ["confined"])
    assert "operators-at-canary" not in answer.text


async def test_only_an_owner_lets_out(town: Town) -> None:
    """The caller's own key opens no door that its confinement shuts."""
    kim, una, _ = town.confined
    for who, kind, subject in ((kim, "key", kim.key.split("_")[1][:8]), (una, "user", "una")):
        with client(town.running, who.key) as http:
            lifted = http.delete("/api/confinements", params={"kind": kind, "subject": subject})
            wider = http.put(
                "/api/confinements",
                json={"kind": kind, "subject": subject, "labels": ["elsewhere", "local"]},
            )
        assert lifted.status_code in (403, 404)
        assert wider.status_code in (403, 404)
    listed = json.loads(await asyncio.to_thread(town.running.cli, "confine", "--json"))
    assert sorted((each["kind"], each["labels"]) for each in listed) == [
        ("key", ["local"]),
        ("org", ["zdr"]),
        ("user", ["local", "vault"]),
    ]


async def test_a_lifted_confinement_counts_no_more(town: Town) -> None:
    """And one that is set counts from the next call on."""
    running = town.running
    key = await asyncio.to_thread(running.user, "leo", "pro")
    asked = {"model": "acme/home:local", "messages": [{"role": "user", "content": "hi"}]}
    elsewhere = {**asked, "model": "acme/vault:vault"}

    def status(body: dict[str, Any]) -> int:
        with client(running, key) as http:
            return http.post("/v1/chat/completions", json=body).status_code

    await asyncio.to_thread(running.cli, "confine", "--user", "leo", "local")
    assert await asyncio.to_thread(status, asked) == 200
    assert await asyncio.to_thread(status, elsewhere) == 403
    await asyncio.to_thread(running.cli, "confine", "--user", "leo", "--off")
    assert await asyncio.to_thread(status, elsewhere) != 403
