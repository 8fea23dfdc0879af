"""Promise: a secret that came in goes to whom it is for, and is nowhere else: not in the log at its
most talkative, the database, a backup, an error, the metrics, a trace, an explanation or output.

Every provider here repeats all it was sent in whatever it can answer with. Prompts are secrets too:
a caller hears a provider's words about them, the appliance's files never do.
"""

import base64
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.logs.fields import FIELDS
from app.logs.redact import GONE
from app.tracing.attributes import ATTRIBUTES
from tests.journeys.canaries import SCENES, WORDS, Canaries
from tests.journeys.leaky_street import OTHERS, PROMPTS, REFUSALS, Street, provider_id, street
from tests.upstreams.collector import PlayedCollector

JSON_FILES = """
[logs]
format = "json"
file = "{folder}/t.log"
file_bytes_max = 100_000
files_kept = 1000
"""
TRACES = """
[tracing]
endpoint = "{endpoint}"
headers = {{ X-Token = "env:TP_LEAK_COLLECTOR" }}
"""


async def settle_in(town: Street) -> None:
    """Alice has provider keys of her own, so has her org; bob has none, tim hardly any money."""
    plant = town.canaries.plant
    for who, tier in (("alice", "pro"), ("bob", "pro"), ("tim", "tiny"), ("eve", "pro")):
        await town.operator("POST", "/api/users", {"name": who, "tier": tier})
        made = await town.ask(
            "POST", "/api/keys", _token(town), {"user": who, "name": "k"}, may_hold=()
        )
        key = made.json()["key"]
        plant(f"API key of {who}", key.split("_", 2)[2])
        town.keys[who] = key
    gone = next(
        each
        for each in (await town.operator("GET", "/api/keys"))["data"]
        if each["user_name"] == "eve"
    )
    await town.operator("DELETE", f"/api/keys/{gone['id']}")
    await town.operator("POST", "/api/orgs", {"name": "acme", "tier": "team", "admin": "alice"})

    own, orgs = plant("alice's provider key"), plant("the org's provider key")
    before, ended = plant("a replaced provider key"), plant("a removed provider key")
    refused = plant("a refused provider key")
    key = town.keys["alice"]
    for scene in SCENES:
        path = f"provider-keys/{provider_id(scene)}"
        await town.ask("PUT", f"/api/{path}", key, {"secret": before})
        await town.ask("PUT", f"/api/{path}", key, {"secret": own})
        await town.ask("PUT", f"/api/orgs/acme/{path}", key, {"secret": orgs})
    for body in (
        {"secret": f"{refused} {refused}"},
        {"secret": f"{refused}\r\nX-Evil: 1"},
        {"secret": [refused]},
        {"secret": refused, "paid_fallback": refused},
        {"secret": refused, "surplus": refused},
    ):
        answer = await town.ask("PUT", "/api/provider-keys/ok", key, body)
        assert answer.status_code == 400
    answer = await town.ask(
        "PUT", "/api/provider-keys/ok", key, content=b'{"secret": "' + refused.encode()
    )
    assert answer.status_code in {400, 415}
    await town.ask("PUT", "/api/provider-keys/nobody", key, {"secret": refused})
    await town.ask("PUT", "/api/provider-keys/ok", town.keys["bob"], {"secret": ended})
    await town.ask("DELETE", "/api/provider-keys/ok", town.keys["bob"])


def _token(town: Street) -> str:
    token: str = json.loads((town.running.data_dir / "server.json").read_text())["token"]
    return token


async def call_in_every_way(town: Street) -> None:
    """Each scene, streamed and not, with the operator's keys, one's own and the org's."""
    statuses = set()
    for scene in SCENES:
        for stream in (False, True):
            for who, more in (("bob", {}), ("alice", {}), ("alice", {"X-HF-Bill-To": "acme"})):
                answer = await town.chat(who, f"acme/{scene}", stream=stream, **more)
                statuses.add(answer.status_code)
                if scene == "ok":
                    assert answer.status_code == 200, answer.text
                    assert WORDS.split()[-1] in answer.text
    assert {200, 400, 402, 403, 429, 502} <= statuses
    for plugin in OTHERS:
        for scene in REFUSALS:
            for stream in (False, True):
                answer = await town.chat("bob", f"{plugin}/{scene}", stream=stream)
                assert answer.status_code >= 400
    for number in range(12):  # failing over from one to another
        await town.chat("bob", "acme/everywhere", stream=bool(number % 2))
        await town.chat("bob", "acme/ok", stream=False, **{"Idempotency-Key": f"once-{number % 3}"})
    answers = [await town.chat("tim", "acme/dear", stream=False) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 402]


async def ask_wrongly(town: Street) -> None:
    """Requests that are refused here: what they carried is in no answer either."""
    plant = town.canaries.plant
    chat, path = {"model": "acme/ok", "messages": []}, "/v1/chat/completions"
    bearer, basic = plant("an unknown bearer"), plant("a basic password")
    in_query, in_header = plant("a key in the query"), plant("a key in X-API-Key")
    cookie, proxy, body = plant("a cookie"), plant("a proxy's password"), plant("a key in a body")
    encoded = base64.b64encode(f"user:{basic}".encode()).decode()
    for route in (path, "/v1/models", "/api/users", "/api/provider-keys", "/nowhere"):
        for headers in (
            {"Authorization": f"Bearer {bearer}"},
            {"Authorization": f"Bearer tp_{bearer}"},
            {"Authorization": f"Bearer sk-{bearer} {bearer}"},
            {"Authorization": f"Basic {encoded}"},
            {"Authorization": bearer},
            {"X-API-Key": in_header},
            {"Cookie": f"session={cookie}", "Proxy-Authorization": f"Basic {proxy}"},
        ):
            method = "POST" if route == path else "GET"
            answer = await town.ask(
                method, route, "", chat if method == "POST" else None, headers=headers
            )
            assert answer.status_code in {401, 404}
        await town.ask("GET", route, town.keys["bob"], query={"api_key": in_query, "key": in_query})
    assert (await town.ask("GET", "/v1/models", town.keys["eve"])).status_code == 401
    for wrong in (
        {**chat, "api_key": body},
        {**chat, "messages": [{"role": "user", "content": "x", "token": body}]},
        {**chat, "temperature": body},
        {**chat, "provider": {"order": [body], "api_key": body}},
    ):
        answer = await town.ask("POST", path, town.keys["bob"], wrong)
        assert 400 <= answer.status_code < 500
    prompt = plant("broken body")
    for content in (
        b'{"model": "' + prompt.encode(),
        prompt.encode(),
        b"[" * 100 + prompt.encode(),
    ):
        answer = await town.ask(
            "POST",
            path,
            town.keys["bob"],
            content=content,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 400
    url = f"https://me:{plant('image url')}@127.0.0.1/p.png"
    part = {"type": "image_url", "image_url": {"url": url}}
    picture = {"model": "acme/ok", "messages": [{"role": "user", "content": [part]}]}
    await town.ask("POST", path, town.keys["bob"], picture, may_hold=PROMPTS)


async def hear_everything(town: Street) -> None:
    """All that the appliance tells of itself."""
    for route in ("/metrics", "/readyz", "/livez"):
        assert (await town.ask("GET", route, "")).status_code == 200
    for route in (
        *("/v1/models", "/v1/models/acme/ok", "/api/usage", "/api/usage/rows", "/api/billing"),
        *("/api/provider-keys", "/api/orgs/acme/provider-keys", "/api/orgs", "/api/limits"),
        *("/api/v1/key", "/api/v1/credits", "/api/invoices/preview"),
    ):
        assert (await town.ask("GET", route, town.keys["alice"])).status_code == 200, route
    for route in ("/api/users", "/api/keys", "/api/models", "/api/events", "/api/usage/rows"):
        await town.operator("GET", route)
    await town.ask("GET", "/api/usage/rows?format=csv", town.keys["alice"])
    await town.operator("POST", "/api/secrets/rotate")
    for command in (
        ("provider-keys", "list", "--user", "alice", "--json"),
        ("provider-keys", "list", "--org", "acme"),
        ("secrets", "rotate", "--json"),
        ("keys", "list", "--json"),
        ("models", "list", "--json"),
        ("usage", "rows", "--csv"),
        ("usage", "--by", "user", "--csv"),
        ("ledger", "audit", "--json"),
        ("ledger", "statement", "alice", "--json"),
        ("invoices", "preview", "alice"),
    ):
        await town.cli(*command)


def check_json(folder: Path) -> str:
    """All that was logged into files, each line of which is an object of the allowed fields."""
    assert {"t.log", "t.log.1"} <= {path.name for path in folder.iterdir()}  # it was put aside
    log = ""
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        text = path.read_text(encoding="ascii")
        for line in text.splitlines():
            assert set(json.loads(line)) <= set(FIELDS)
        log += text
    return log


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("logs", ["", JSON_FILES], ids=["text", "json files"])
async def test_no_planted_secret_is_found_anywhere(tmp_path: Path, logs: str) -> None:
    folder = tmp_path / "data" / "logs"
    folder.mkdir(parents=True)
    async with PlayedCollector() as collector, AsyncExitStack() as stack:
        more = logs.format(folder=folder) + TRACES.format(endpoint=collector.endpoint)
        town = await stack.enter_async_context(street(tmp_path, more))
        town.canaries.plant("prompt")
        town.canaries.plant("system prompt")
        await settle_in(town)
        await call_in_every_way(town)
        await ask_wrongly(town)
        await town.heard_from("/hook", "/billing")  # tim's last cent, and what a call cost
        await hear_everything(town)
        await collector.until(lambda: len(collector.spans) > 5 * len(SCENES))
        for body in collector.bodies:
            town.canaries.look("a trace", body)
        assert {name for span in collector.spans for name in span.attributes} <= ATTRIBUTES
        assert {each.headers["x-token"] for each in collector.serving.asked} == {
            town.canaries.planted["collector's token"]
        }
        archive = tmp_path / "backup.tar"
        await town.cli("backup", str(archive))
        seen = town.look_at_files("while it runs")
        assert {"turnpike.db", "turnpike.db-wal", "serve.log", "config.toml"} <= set(seen)
        town.running.kill()
        town.look_at_files("after a kill")
        town.canaries.look("the backup", archive.read_bytes())

        sent = str([each.headers for each in town.provider.asked])
        for name in ("operator's key", "pool key one", "pool key two", "alice's provider key"):
            assert town.canaries.planted[name] in sent, f"{name} was never used"
        assert town.canaries.planted["the org's provider key"] in sent
        assert town.canaries.planted["billing key"] in sent
        for name in ("a replaced provider key", "a removed provider key", "a refused provider key"):
            assert town.canaries.planted[name] not in sent
        log = check_json(folder) if logs else (town.running.data_dir / "serve.log").read_text()
        assert "failed:" in log  # it was talkative
        assert log.count("call ended") > len(SCENES)
        assert GONE not in log  # the first net held: the second found nothing
        assert len(town.canaries.planted) >= 20
        assert town.canaries.found == []


def test_the_search_finds_what_it_looks_for() -> None:
    canaries = Canaries()
    secret = canaries.plant("a")
    canaries.plant("b")
    canaries.look("1", f"... {secret} ...")
    canaries.look("2", secret[:20])
    canaries.look("3", base64.b64encode(f"user:{secret}".encode()))
    canaries.look("4", secret, "a")
    canaries.look("5", secret[20:])
    assert [each.split(" behind")[0] for each in canaries.found] == ["a in 1", "a in 2", "a in 3"]
