"""Promise: with a collector configured each call is one trace that says where its time went, in the
caller's own where it has one; without one nothing is different."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from tests.appliance import MOCK_PROVIDER, appliance
from tests.journeys.traced import ask, is_well_formed, log_of, mapped, started
from tests.upstreams.collector import CLIENT, INTERNAL, SERVER, PlayedCollector
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

ROUTE = "POST /v1/chat/completions"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECOND = MOCK_PROVIDER.replace('"mock"', '"other"').replace('"m"', '"n"')
LOCAL = """
[[local.models]]
id = "acme/local"
source = "fake:{more}"
"""


async def test_a_call_is_one_trace_that_the_log_leads_to(tmp_path: Path) -> None:
    async with PlayedCollector() as collector, PlayedProvider() as played:
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        log = tmp_path / "calls.log"
        config += f'[logs]\nformat = "json"\nfile = "{log}"\n'
        async with started(tmp_path, collector, config) as (running, key):
            answer = await ask(running, key)
            streamed = await ask(running, key, stream=True)
            calls = await collector.calls(2)
            rows = json.loads(await asyncio.to_thread(running.cli, "usage", "rows", "--json"))
    assert (answer.status_code, streamed.status_code) == (200, 200)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    by_call = {line["call_id"]: line for line in lines if line["logger"] == "turnpike.calls"}
    row_of = {row["call_id"]: row for row in rows}
    for call, heard, stream in zip(calls, (answer, streamed), (False, True), strict=True):
        is_well_formed(call)
        said = call.attributes
        assert (call.name, call.kind, call.parent_id, call.error) == (ROUTE, SERVER, "", None)
        call_id = heard.headers["Inference-Id"]
        assert said["turnpike.request_id"] == call_id
        assert by_call[call_id]["trace_id"] == call.trace_id
        assert said["http.route"] == "/v1/chat/completions"
        assert said["http.response.status_code"] == 200
        assert said["gen_ai.request.model"] == "acme/tiny"
        assert said["gen_ai.provider.name"] == "mock"
        assert said["gen_ai.request.stream"] is stream
        row = row_of[call_id]
        assert said["turnpike.cost_nano_usd"] == row["cost_nano_usd"] > 0
        assert said["gen_ai.usage.output_tokens"] == row["output_tokens"] == 8
        assert said["turnpike.user_id"] == row["user_id"]
        assert said["turnpike.outcome"] == "completed"
        steps = [(child.name, child.kind) for child in call.children]
        assert steps == [
            ("authenticate", INTERNAL),
            ("hold", INTERNAL),
            ("chat m", CLIENT),
            ("settle", INTERNAL),
        ]
        attempt = call.child("chat m")
        assert attempt.error is None
        assert attempt.attributes["gen_ai.operation.name"] == "chat"
        assert attempt.attributes["turnpike.attempt"] == 1
        assert ("first token" in attempt.events) is stream
        assert call.resource["service.name"] == "turnpike"
    assert calls[0].trace_id != calls[1].trace_id
    # Nothing of it goes to a provider.
    assert not {"traceparent", "tracestate"} & {h for b in played.books for h in b.headers}


async def test_a_failover_shows_each_attempt(tmp_path: Path) -> None:
    async with (
        PlayedCollector() as collector,
        PlayedProvider(always=Scene(status=500)) as ill,
        PlayedProvider(always=Scene(words=3)) as well,
    ):
        config = '[routing]\nprobes = false\ndefault_policy = "preferred"\n'
        config += MOCK_PROVIDER.format(base_url=ill.base_url)
        config += SECOND.format(base_url=well.base_url)
        async with started(tmp_path, collector, config) as (running, key):
            assert (await ask(running, key)).status_code == 200
            (call,) = await collector.calls(1)
    is_well_formed(call)
    assert call.error is None
    assert call.attributes["gen_ai.provider.name"] == "other"
    assert call.attributes["turnpike.attempts"] == 2
    first, second = call.child("chat m"), call.child("chat n")
    assert first.error == first.attributes["error.type"] == "upstream"
    assert first.attributes["http.response.status_code"] == 500
    assert first.attributes["gen_ai.provider.name"] == "mock"
    assert (second.error, second.attributes["turnpike.attempt"]) == (None, 2)
    assert first.end_ns <= second.start_ns


async def test_a_second_attempt_beside_the_first_overlaps_it(tmp_path: Path) -> None:
    async with (
        PlayedCollector() as collector,
        PlayedProvider(always=Scene(wait_s=20.0)) as slow,
        PlayedProvider(always=Scene(words=3)) as quick,
    ):
        config = '[routing]\nprobes = false\ndefault_policy = "preferred"\n'
        config += "hedge_after_seconds = 0.2\n" + MOCK_PROVIDER.format(base_url=slow.base_url)
        config += SECOND.format(base_url=quick.base_url)
        async with started(tmp_path, collector, config) as (running, key):
            for _ in range(3):  # the retry budget has room for each
                assert (await ask(running, key)).status_code == 200
            calls = await collector.calls(3)
    for call in calls:
        is_well_formed(call)
        assert call.error is None
        assert call.attributes["gen_ai.provider.name"] == "other"
        first, second = call.child("chat m"), call.child("chat n")
        assert (first.error, second.error) == ("hedged", None)
        assert first.start_ns < second.start_ns < first.end_ns < second.end_ns


async def test_refusals_and_failures_say_why(tmp_path: Path) -> None:
    async with PlayedCollector() as collector, PlayedProvider() as played:
        tier = '[tiers.tiny]\nmonthly_credit_usd = "0.00"\n'
        config = tier + MOCK_PROVIDER.format(base_url=played.base_url)
        async with started(tmp_path, collector, config) as (running, key):
            poor = await asyncio.to_thread(running.user, "tim", "tiny")
            played.script(Scene(status=400), Scene(status=500), Scene(words=9, error_after=3))
            answers = [
                await ask(running, "tp_nobody"),
                await ask(running, key, "acme/none"),
                await ask(running, key, temperature=17),
                await ask(running, poor),
                await ask(running, key),
                await ask(running, key),
                await ask(running, key, stream=True),
            ]
            calls = await collector.calls(len(answers))
    statuses = [answer.status_code for answer in answers]
    assert statuses == [401, 404, 400, 402, 400, 502, 200]
    for call, status in zip(calls, statuses, strict=True):
        is_well_formed(call)
        assert call.attributes["http.response.status_code"] == status
        assert call.attributes["error.type"]
        # By the conventions what a client did wrong is no error of the server's.
        assert (call.error is None) == (400 <= status < 500)
    stranger, unknown, wrong, unpaid, refused, failed, broken = calls
    assert [child.name for child in stranger.children] == ["authenticate"]
    assert stranger.child("authenticate").error == "invalid_api_key"
    assert "turnpike.user_id" not in stranger.attributes
    assert unknown.attributes["error.type"] == "model_not_found"
    assert [child.name for child in wrong.children] == ["authenticate"]
    assert unpaid.child("hold").error == "insufficient_quota"
    assert [child.name for child in unpaid.children] == ["authenticate", "hold"]
    assert refused.child("chat m").error == "bad_request"
    assert failed.child("chat m").error == "upstream"
    assert broken.child("chat m").error
    assert broken.attributes["turnpike.outcome"] == "failed_partial"


async def test_a_client_that_leaves_ends_its_span_once_it_is_settled(tmp_path: Path) -> None:
    async with (
        PlayedCollector() as collector,
        PlayedProvider(always=Scene(words=20, gap_s=0.05)) as played,
    ):
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        async with started(tmp_path, collector, config) as (running, key):
            body = {
                "model": "acme/tiny",
                "stream": True,
                "messages": [{"role": "user", "content": "x"}],
            }
            async with (
                httpx.AsyncClient(trust_env=False, timeout=30) as client,
                client.stream(
                    "POST",
                    f"{running.base_url}/v1/chat/completions",
                    json=body,
                    headers={"Authorization": f"Bearer {key}"},
                ) as answer,
            ):
                await anext(answer.aiter_lines())
            (call,) = await collector.calls(1)
    is_well_formed(call)
    assert call.error == call.attributes["error.type"] == "client_left"
    assert call.attributes["turnpike.outcome"] == "client_left"
    assert call.attributes["turnpike.cost_nano_usd"] > 0
    assert call.child("chat m").error == "client_left"
    assert "first token" in call.child("chat m").events
    assert call.child("settle").error is None


async def test_a_local_call_shows_its_queue_and_a_child_that_dies(tmp_path: Path) -> None:
    config = LOCAL.format(more="crash_on=BOOM,crash_after_tokens=3,tokens_per_second=100")
    async with (
        PlayedCollector() as collector,
        started(tmp_path, collector, config) as (running, key),
    ):
        assert (await ask(running, key, "acme/local", stream=True)).status_code == 200
        (call,) = await collector.calls(1)
        is_well_formed(call)
        attempt = call.child("chat acme/local")
        assert attempt.error is None
        assert [child.name for child in attempt.children] == ["queue", "generate"]
        queue, generate = attempt.children
        assert attempt.start_ns == queue.start_ns
        assert queue.end_ns == generate.start_ns
        assert generate.start_ns <= attempt.events["first token"] <= generate.end_ns
        assert attempt.attributes["gen_ai.provider.name"] == "local"

        boom = [{"role": "user", "content": "one two three four BOOM"}]
        broken = await ask(running, key, "acme/local", stream=True, messages=boom)
        assert "engine_crashed" in broken.text
        _, call = await collector.calls(2)
        is_well_formed(call)
        assert call.error == "engine_crashed"
        attempt = call.child("chat acme/local")
        assert attempt.error == attempt.child("generate").error == "crashed"
        assert attempt.child("queue").error is None


async def test_a_drain_that_ends_breaks_spans_off_and_delivers_them(tmp_path: Path) -> None:
    async with (
        PlayedCollector() as collector,
        PlayedProvider(always=Scene(words=3, hang_after=2)) as played,
    ):
        config = "[server]\nport = 0\ndrain_seconds_max = 0.3\n"
        config += MOCK_PROVIDER.format(base_url=played.base_url)
        async with started(tmp_path, collector, config) as (running, key):
            asked = asyncio.create_task(ask(running, key, stream=True))
            await played.wait_until(lambda: bool(played.books) and played.books[0].hanging, 20)
            assert await asyncio.to_thread(running.stop) == 0
            (call,) = await collector.calls(1)
            await asyncio.wait({asked})
            _ = asked.exception()
    is_well_formed(call)
    assert call.error
    assert call.child("chat m").error
    assert call.child("settle").error is None


async def test_a_callers_trace_goes_on_here(tmp_path: Path) -> None:
    async with PlayedCollector() as collector, PlayedProvider() as played:
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        async with started(tmp_path, collector, config) as (running, key):
            state = {"tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"}
            for headers in (
                {"traceparent": f"00-{TRACE}-{SPAN}-01", **state},
                {"traceparent": f"00-{TRACE}-{SPAN}-00"},  # not recorded there, nor here
                {"traceparent": f"00-{TRACE}-{SPAN}-01-more"},
                {"traceparent": "00-" + "0" * 32 + f"-{SPAN}-01"},
                {"traceparent": "x" * 5000, "tracestate": "y" * 5000},
                {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "=,=;;"},
            ):
                assert (await ask(running, key, headers=headers)).status_code == 200
            calls = await collector.calls(5)
    first, *malformed, stateless = calls
    assert (first.trace_id, first.parent_id) == (TRACE, SPAN)
    assert first.state == state["tracestate"]
    for call in first.children:
        assert (call.trace_id, call.state) == (TRACE, first.state)
    for call in malformed:
        assert call.trace_id != TRACE
        assert call.parent_id == ""
    assert (stateless.trace_id, stateless.state) == (TRACE, "")


@pytest.mark.parametrize("trust", [False, True], ids=["strangers", "trusted"])
async def test_a_caller_cannot_have_more_recorded_than_the_operator_wants(
    tmp_path: Path, trust: bool
) -> None:
    async with PlayedCollector() as collector, PlayedProvider() as played:
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        more = f"sample_ratio = 0.0\ntrust_callers = {str(trust).lower()}"
        async with started(tmp_path, collector, config, more) as (running, key):
            forced = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            for headers in (forced, {}, forced):
                assert (await ask(running, key, headers=headers)).status_code == 200
            await asyncio.to_thread(running.stop)
    # The log knows the caller's trace all the same.
    assert log_of(tmp_path).count(f"trace_id={TRACE}") == 2
    assert [each.trace_id for each in collector.spans if each.kind == SERVER] == [TRACE] * 2 * trust


async def test_a_restart_delivers_what_was_there_and_goes_on(tmp_path: Path) -> None:
    async with PlayedCollector() as collector, PlayedProvider() as played:
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        async with started(tmp_path, collector, config) as (running, key):
            assert (await ask(running, key)).status_code == 200
            await asyncio.to_thread(running.cli, "restart")
            assert (await ask(running, key)).status_code == 200
            before, after = await collector.calls(2)
    same = "service.instance.id"
    assert before.resource[same] != after.resource[same]
    is_well_formed(before)
    is_well_formed(after)


async def test_a_reload_says_that_it_needs_a_restart(tmp_path: Path) -> None:
    async with PlayedCollector() as collector, PlayedProvider() as played:
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        async with started(tmp_path, collector, config) as (running, _):
            text = running.config_path.read_text()
            running.config_path.write_text(text.replace("[tracing]", "[tracing]\nsample_ratio = 0"))
            said = await asyncio.to_thread(running.cli, "reload")
    assert "tracing" in said
    assert "restart" in said


async def test_spans_go_with_the_headers_that_the_file_refers_to(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("Bearer CANARY-OF-HEADER\n")
    async with PlayedCollector() as collector, PlayedProvider() as played:
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        more = f'headers = {{ Authorization = "file:{token}" }}'
        async with started(tmp_path, collector, config, more) as (running, key):
            assert (await ask(running, key)).status_code == 200
            await collector.calls(1)
            shown = await asyncio.to_thread(running.cli, "config", "show")
    assert {each.headers["authorization"] for each in collector.serving.asked} == {
        "Bearer CANARY-OF-HEADER"
    }
    assert "CANARY" not in shown + log_of(tmp_path)
    assert b"CANARY" not in b"".join(collector.bodies)


async def test_without_a_collector_opentelemetry_is_not_there(tmp_path: Path) -> None:
    async with PlayedProvider() as played:
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            assert (await ask(running, key, headers=headers)).status_code == 200
            # Protobuf's own library comes with it.
            assert "google/_upb" not in mapped(running)
    assert "trace_id" not in log_of(tmp_path)
