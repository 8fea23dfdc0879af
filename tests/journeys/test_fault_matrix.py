"""Bar B5: every fault of a provider, streamed and not, with one provider and with three, over real
HTTP. The client is told the truth in words of ours, nothing is delivered twice, nothing is cut off
in silence, and the ledger charges what the books of the provider that delivered say.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.appliance import appliance
from tests.journeys.callers import Caller, Heard, chat
from tests.journeys.faults import (
    BEFORE_THE_FIRST_BYTE,
    BREAKS,
    KEY,
    SAID,
    Break,
    Fault,
)
from tests.journeys.ledger_file import LedgerFile
from tests.journeys.stage import PROMPT, RATES, Part, Stage, estimate, open_stage, slug
from tests.upstreams.billing import PlayedBilling
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import SCENES, WORDS, Scene

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

GOOD = Part(SCENES["normal"])
TEXT = " ".join(WORDS[:8])
SCRIPTED = Part(SCENES["normal"], weights=(1, 1))
LIMITED = {fault.name: fault for fault in BEFORE_THE_FIRST_BYTE if fault.status == 429}
BY_NAME = {fault.name: fault for fault in BEFORE_THE_FIRST_BYTE}


class Case(NamedTuple):
    """A fault, a mode and who else is there: nobody (``alone``), a third provider that is well
    (``rescued``), or two more with the same fault (``doomed``)."""

    fault: Fault
    stream: bool
    others: str

    @property
    def name(self) -> str:
        return slug(self.fault.name, "stream" if self.stream else "whole", self.others)

    def parts(self) -> tuple[Part, ...]:
        bad = Part(self.fault.scene, self.fault.where, self.fault.impatient)
        return {"alone": (bad,), "rescued": (bad, bad, GOOD), "doomed": (bad, bad, bad)}[
            self.others
        ]


EARLY = [
    Case(fault, mode == "stream", others)
    for fault in BEFORE_THE_FIRST_BYTE
    for mode in fault.modes
    for others in ("alone", "rescued", "doomed")
]
LATE = [(broken, count) for broken in BREAKS for count in (1, 3)]
# An answer that is good, in odd clothes; and one whose count cannot be true.
ODD = ("normal", "crlf", "comments", "sliced", "usage_first", "usage_every", "no_done", "cached")
MISCOUNTED = ("usage_negative", "usage_absurd", "usage_text", "usage_null", "usage_never")
GOOD_SCENES = [(name, stream) for name in (*ODD, *MISCOUNTED) for stream in (False, True)]
SPECIAL = {
    "two-keys": (SCRIPTED, GOOD),
    "keys-run-out": (SCRIPTED,),
    "refused-keys-run-out": (SCRIPTED,),
    "refused-key-shown": (GOOD,),
    "waits-shortest": (Part(SCENES["normal"]), Part(SCENES["normal"]), Part(SCENES["normal"])),
    "for-ever": (Part(Scene(name="for_ever", forever=True, finish=False)), GOOD),
    "over-tls": (Part(SCENES["normal"], "good"),),
    "long-line-whole": (Part(SCENES["huge_line"]),),
    "too-long-whole-body": (Part(Scene(name="huge", line_bytes=65 * 1024 * 1024)), GOOD),
    "no-handshake": (Part(SCENES["normal"], "silent"), GOOD),
}


def late_name(broken: Break, count: int) -> str:
    return slug("late", broken.name, str(count))


def good_name(scene: str, stream: bool) -> str:
    return slug("good", scene, "stream" if stream else "whole")


def all_cases() -> dict[str, tuple[Part, ...]]:
    found = {case.name: case.parts() for case in EARLY}
    for broken, count in LATE:
        bad = Part(broken.scene, impatient=broken.impatient)
        found[late_name(broken, count)] = (bad, GOOD, GOOD)[:count]
    for scene, stream in GOOD_SCENES:
        found[good_name(scene, stream)] = (Part(SCENES[scene]),)
    return found | SPECIAL


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("matrix")
    async with open_stage(folder, all_cases()) as made:
        yield made
        await made.ledger.settled()
        assert made.ledger.check()["overrun"] == 0
        log = (made.running.data_dir / "serve.log").read_text()
        assert KEY not in log
        assert "Traceback" not in log


def check_refusal(heard: Heard, fault: Fault) -> None:
    """The error is whole, honest and in words of ours."""
    error = heard.error
    assert error is not None
    assert (heard.status, error["code"]) == (fault.status, fault.code), error
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["request_id"] == heard.call_id
    assert b"sk-" not in heard.body
    assert "x-inference-provider" not in heard.headers
    if fault.status >= 429:
        for words in (SAID, "melted", "failed midway", "HTTP", "127.0.0.1", "Traceback"):
            assert words.encode() not in heard.body
        assert error["availability"]["retryable"] is True
    retry_after = heard.headers.get("retry-after")
    assert retry_after == (None if fault.retry_after is None else str(fault.retry_after))


def check_whole(heard: Heard, provider: str, text: str = TEXT) -> None:
    """A complete answer, once."""
    assert heard.status == 200, heard.body
    assert heard.text == text
    assert heard.headers["x-inference-provider"] == provider
    assert KEY.encode() not in heard.body
    if heard.body.startswith(b"data:"):
        assert heard.done
        assert heard.events.count("[DONE]") == 1
        assert reasons(heard) == ["stop"]
    else:
        (choice,) = json.loads(heard.body)["choices"]
        assert choice["finish_reason"] == "stop"


def reasons(heard: Heard) -> list[str]:
    """The finish reasons of a stream."""
    chunks = [json.loads(event) for event in heard.events if event != "[DONE]"]
    found = [choice["finish_reason"] for chunk in chunks for choice in chunk.get("choices", ())]
    return [reason for reason in found if reason]


@pytest.mark.parametrize("case", EARLY, ids=lambda case: case.name)
async def test_fault_before_the_first_byte(stage: Stage, case: Case) -> None:
    fault, name = case.fault, case.name
    heard = await stage.ask(name, stream=case.stream)
    asked = int(fault.asks)
    row = await stage.row(heard)
    if case.others == "rescued" and fault.retries:
        check_whole(heard, f"{name}-c")
        assert stage.times(name) == (asked, asked, 1)
        assert (row.outcome, row.attempts, row.provider) == ("completed", 3, f"{name}-c")
        assert (row.cost, row.state) == (stage.bill(name, "c"), "settled")
    else:
        check_refusal(heard, fault)
        tried = 3 if fault.retries and case.others != "alone" else 1
        assert stage.times(name) == tuple(asked if at < tried else 0 for at in range(3))
        assert (row.outcome, row.attempts) == ("failed", tried)
        assert (row.cost, row.state) == (0, "void")
    assert (row.lost, row.overrun, row.estimated) == (0, 0, False)


@pytest.mark.parametrize(("broken", "count"), LATE, ids=lambda value: getattr(value, "name", value))
async def test_stream_that_breaks_off(stage: Stage, broken: Break, count: int) -> None:
    name = late_name(broken, count)
    heard = await stage.ask(name, stream=True)
    assert heard.status == 200
    assert heard.headers["x-inference-provider"] == f"{name}-a"
    error = heard.error
    assert error is not None, "an end that looks like a whole answer"
    assert not heard.done
    assert "[DONE]" not in heard.events
    assert reasons(heard) == ["error"]
    assert (error["code"], error["request_id"]) == (broken.code, heard.call_id)
    for words in ("failed midway", "sk-", SAID, "127.0.0.1"):
        assert words.encode() not in heard.body
    assert stage.times(name) == (1, 0, 0), "nobody else may take over"
    row = await stage.row(heard)
    assert (row.attempts, row.overrun) == (1, 0)
    if not broken.wordless:
        assert (row.outcome, row.state, row.lost) == ("failed_partial", "settled", 0)
        assert bool(row.estimated) is not broken.reported
        bill = stage.bill(name, "a") if broken.reported else estimate("a", heard.text)
        assert row.cost == bill
    else:
        assert heard.text == ""
        assert (row.outcome, row.state, row.cost) == ("failed", "void", 0)
        assert row.lost == estimate("a", "")


@pytest.mark.parametrize(("scene", "stream"), GOOD_SCENES)
async def test_answers_in_odd_clothes(stage: Stage, scene: str, stream: bool) -> None:
    name = good_name(scene, stream)
    heard = await stage.ask(name, stream=stream, others=0)
    check_whole(heard, f"{name}-a")
    row = await stage.row(heard)
    assert (row.outcome, row.attempts, row.overrun) == ("completed", 1, 0)
    assert bool(row.estimated) is (scene in MISCOUNTED)
    expected = estimate("a", TEXT) if scene in MISCOUNTED else stage.bill(name, "a")
    assert row.cost == expected


async def test_a_key_that_is_limited_rests_and_the_other_serves(stage: Stage) -> None:
    limited = LIMITED["limited_seconds"].scene
    stage.script["two-keys-a"] = [limited]
    for _ in range(4):
        check_whole(await stage.ask("two-keys", stream=False), "two-keys-a")
    met = stage.met("two-keys")
    keys = [booked.headers["authorization"] for booked in met["a"]]
    assert [booked.status for booked in met["a"]] == [429, 200, 200, 200, 200]
    assert keys[0] not in keys[1:]
    assert met["b"] == []


@pytest.mark.parametrize("name", ["keys-run-out", "refused-keys-run-out"])
async def test_when_all_keys_rest_the_provider_is_left_alone(stage: Stage, name: str) -> None:
    refused = name.startswith("refused")
    fault = BY_NAME["unauthorised"] if refused else LIMITED["limited_seconds"]
    later = BY_NAME["forbidden"] if refused else LIMITED["limited_date"]
    stage.script[f"{name}-a"] = [fault.scene, later.scene]
    first = await stage.ask(name, stream=False)
    assert first.status == fault.status
    assert stage.times(name) == (2, 0, 0), "each key once"
    for stream in (False, True):
        again = await stage.ask(name, stream=stream, others=0)
        assert (again.status, again.error and again.error["code"]) == (fault.status, fault.code)
        assert b"sk-" not in again.body
        if not refused:  # the key that is back first
            assert 1 <= int(again.headers["retry-after"]) <= 7
    assert stage.times(name) == (2, 0, 0), "no request while they rest"


async def test_the_client_is_told_the_shortest_wait(stage: Stage) -> None:
    name = "waits-shortest"
    for role, fault in zip(RATES, ("date", "seconds", "absurd"), strict=True):
        stage.script[f"{name}-{role}"] = [LIMITED[f"limited_{fault}"].scene]
    first = await stage.ask(name, stream=False)
    second = await stage.ask(name, stream=False, others=0)
    assert (first.status, second.status) == (429, 429)
    assert stage.times(name) == (1, 1, 1)
    assert 1 <= int(second.headers["retry-after"]) <= 7
    assert 1 <= int(first.headers["retry-after"]) <= 7


async def test_a_refused_key_is_shown_to_the_operator(stage: Stage) -> None:
    name = "refused-key-shown"
    stage.script[f"{name}-a"] = [BY_NAME["unauthorised"].scene]
    heard = await stage.ask(name, stream=False)
    assert heard.status == 502
    lines = json.loads(
        await asyncio.to_thread(stage.running.cli, "providers", f"{name}-a", "--json")
    )
    (line,) = lines
    assert [key["state"] for key in line["keys"]] == ["refused"]
    assert KEY not in json.dumps(lines)


async def test_an_endless_stream_is_stopped(stage: Stage) -> None:
    heard = await stage.ask("for-ever", stream=True, max_tokens=20)
    assert heard.status == 200
    assert reasons(heard) == (["length"] if heard.done else ["error"]), "said either way"
    # Its limit twice over and 64, and what came along in one read.
    assert len(heard.text.split()) <= 2 * 20 + 64 + 65_536 // 100
    row = await stage.row(heard)
    assert row.outcome in ("truncated", "failed_partial")
    assert (row.attempts, row.overrun) == (1, 0)
    assert row.output_tokens == 20, "what comes past the limit is not paid for"
    (booked,) = stage.met("for-ever")["a"]
    await stage.played["played"].wait_until(lambda: booked.gone)


async def test_tls_that_is_good_is_used(stage: Stage) -> None:
    check_whole(await stage.ask("over-tls", stream=False, others=0), "over-tls-a")
    for name in ("expired", "wrong_host", "stranger", "tls_1_1"):
        assert stage.played[name].books == [], "no key for a server that cannot prove its name"


async def test_a_connection_that_does_not_come_about_is_given_up(stage: Stage) -> None:
    """Within 5 s, though the first event could take 80."""
    heard = await stage.ask("no-handshake", stream=False, headers={"X-Turnpike-Explain": "1"})
    check_whole(heard, "no-handshake-b")
    first, _ = json.loads(heard.body)["openrouter_metadata"]["attempts"]
    assert first["status"] == "connect"
    assert first["ms"] < 20_000


async def test_a_body_without_end_is_cut_off(stage: Stage) -> None:
    heard = await stage.ask("too-long-whole-body", stream=False)
    check_whole(heard, "too-long-whole-body-b")
    assert stage.times("too-long-whole-body") == (1, 1, 0)


DUPLICATES = """
[routing]
probes = false
[[providers]]
id = "partner"
plugin = "openai_compatible"
base_url = "{base_url}"
billing = {{ url = "{billing_url}" }}
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
{price}
"""


async def test_an_id_that_comes_twice_is_billed_once(tmp_path: Path) -> None:
    """The first call is charged what the provider says of the id; the second, which it cannot be
    asked about, by the price list."""
    scene = Scene(name="same_id", headers=(("Inference-Id", "the-same"),))
    async with PlayedProvider(always=scene) as provider, PlayedBilling() as billing:
        price = RATES["a"].toml()
        config = DUPLICATES.format(base_url=provider.base_url, billing_url=billing.url, price=price)
        started = appliance(tmp_path / "data", config, program="tests.journeys.hurried")
        running = await asyncio.to_thread(started.__enter__)
        try:
            caller = Caller(running.base_url, await asyncio.to_thread(running.user, "ann", "pro"))
            heard = [
                await caller.ask(chat(PROMPT, model="acme/tiny", stream=stream, max_tokens=50))
                for stream in (False, True)
            ]
            caller.drop()
            ledger = LedgerFile(running.data_dir)
            assert [row[0] for row in ledger.ask("SELECT upstream_id FROM pending_costs")] == [
                "the-same"
            ]
            billing.costs["the-same"] = "777"
            await ledger.settled()
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)
        calls = ledger.calls()
        assert [calls[each.call_id].cost for each in heard] == [
            777,
            provider.books[1].bill(RATES["a"]),
        ]
        assert ledger.check()["overrun"] == 0
    assert "cannot be asked for" in (tmp_path / "data" / "serve.log").read_text()


async def test_a_long_line_is_no_fault_in_a_whole_answer(stage: Stage) -> None:
    heard = await stage.ask("long-line-whole", stream=False, others=0)
    check_whole(heard, "long-line-whole-a")
