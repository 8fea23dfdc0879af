"""Every event reaches the webhook, signed, whatever the receiver does at first."""

import base64
import dataclasses
import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from app import parts
from app.billing.events import TRIED_MS_MAX, Event
from app.clock import SystemClock
from app.config import parse
from app.errors import ConfigError
from app.jobs import deliver_events
from app.jobs.deliver_events import EventDelivery, Webhook, signing_key, wait_ms, webhook_to
from app.jobs.schedule import Crew, table
from app.ledger.time import LedgerClock
from app.storage.database import LedgerUnavailable
from tests.app.billing.till import Till, open_till
from tests.app.jobs.receiver import CUT, ENDLESS, REDIRECT, SLOW, Receiver

KEY = bytes(range(32))
HOUR_MS = 3_600_000


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    async with open_till(tmp_path) as opened:
        yield opened


def delivery(till: Till, url: str, key: bytes | None = KEY, seconds: float = 5.0) -> EventDelivery:
    webhook = Webhook(url=url, key=key, answer_seconds_max=seconds)
    return EventDelivery(till.services.events, till.clock, webhook)


async def record(till: Till, *subjects: str, kind: str = "credit_80") -> None:
    """Events as the ledger writes them."""
    for subject in subjects:
        await till.sql(
            "INSERT INTO events (at_ms, kind, scope, subject_id, period, amount_nano_usd,"
            " limit_nano_usd) VALUES (?, ?, 'payer', ?, '2026-03', 80000001, 100000000)",
            *(till.clock.ms, kind, subject),
        )


async def events(till: Till) -> list[Event]:
    """Oldest first."""
    return (await till.services.events.newest())[::-1]


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104, written out: nothing shared with what is tested."""
    key = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


async def test_an_event_of_a_real_call_arrives_signed(till: Till) -> None:
    alice = await till.user("alice")
    await till.call(alice, 85_000_000)
    async with Receiver() as receiver:
        await delivery(till, receiver.url).run()
    (event,) = await events(till)
    (got,) = receiver.received
    assert got.path == "/hook?of=turnpike"
    assert got.json == {
        "id": event.id,
        "kind": "credit_80",
        "at": "2026-03-11T00:00:00.000Z",
        "scope": "payer",
        "subject": {"id": await till.id_of("alice"), "name": "alice"},
        "period": "2026-03",
        "amount_nano_usd": 85_000_000,
        "amount_usd": "0.085",
        "limit_nano_usd": 100_000_000,
        "limit_usd": "0.10",
        "payer": {"id": await till.id_of("alice"), "name": "alice"},
    }
    assert got.headers["content-type"] == "application/json"
    message_id, timestamp = got.headers["webhook-id"], got.headers["webhook-timestamp"]
    assert "." not in message_id
    assert int(timestamp) == till.clock.ms // 1000
    signed = hmac_sha256(KEY, f"{message_id}.{timestamp}.".encode() + got.body)
    assert got.headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert (event.delivered_at_ms, event.attempts) == (till.clock.ms, 1)


@pytest.mark.parametrize("does", [500, 404, 304, 300, REDIRECT, CUT, SLOW])
async def test_what_is_not_taken_is_sent_again_under_the_same_id(
    till: Till, does: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    await record(till, "one")
    slow = 0.2 if does == SLOW else 5.0
    async with Receiver(does) as receiver:
        job = delivery(till, receiver.url, seconds=slow)
        with caplog.at_level(logging.INFO):
            await job.run()
        (event,) = await events(till)
        assert (event.delivered_at_ms, event.attempts, event.given_up) == (None, 1, False)
        assert "did not take event" in caplog.text
        await job.run()  # not due yet, unless the dice said so
        till.clock.ms += HOUR_MS
        await job.run()
        (event,) = await events(till)
    assert event.delivered_at_ms == till.clock.ms
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len({got.body for got in receiver.received}) == 1
    assert {got.path for got in receiver.received} == {"/hook?of=turnpike"}
    times = [int(got.headers["webhook-timestamp"]) for got in receiver.received]
    assert times[-1] - times[0] == HOUR_MS // 1000


async def test_a_receiver_that_is_not_there_and_then_is(till: Till) -> None:
    async with Receiver() as receiver:
        url = receiver.url
    await record(till, "one")
    await delivery(till, url).run()
    assert [event.attempts for event in await events(till)] == [1]
    receiver = Receiver()
    receiver.port = int(url.split(":")[2].partition("/")[0])
    async with receiver:
        till.clock.ms += HOUR_MS
        await delivery(till, url).run()
    assert [event.delivered_at_ms for event in await events(till)] == [till.clock.ms]


async def test_an_answer_without_end_is_an_answer(till: Till) -> None:
    await record(till, "one")
    async with Receiver(ENDLESS) as receiver:
        await delivery(till, receiver.url).run()
    assert [event.delivered_at_ms for event in await events(till)] == [till.clock.ms]


async def test_without_a_secret_nothing_is_signed(till: Till) -> None:
    await record(till, "one")
    async with Receiver() as receiver:
        await delivery(till, receiver.url, key=None).run()
    assert "webhook-id" in receiver.received[0].headers
    assert "webhook-signature" not in receiver.received[0].headers


async def test_those_of_one_subject_come_in_order_and_do_not_hold_up_others(till: Till) -> None:
    await record(till, "a", "b", "a2")
    await record(till, "a", "b", kind="credit_100")
    async with Receiver(500) as receiver:  # the first of a
        job = delivery(till, receiver.url)
        await job.run()
        first = [(got.json["subject"]["id"], got.json["kind"]) for got in receiver.received]
        assert first[:3] == [("a", "credit_80"), ("b", "credit_80"), ("a2", "credit_80")]
        assert ("b", "credit_100") in first
        till.clock.ms += HOUR_MS
        await job.run()
    got = [(one.json["subject"]["id"], one.json["kind"]) for one in receiver.received]
    assert got.index(("a", "credit_100")) > got.index(("a", "credit_80"), 1)
    assert [event.delivered_at_ms is None for event in await events(till)] == [False] * 5


async def test_a_receiver_that_is_down_is_asked_a_few_times_a_run(till: Till) -> None:
    await record(till, *(f"s{number}" for number in range(40)))
    async with Receiver(*[503] * 100) as receiver:
        job = delivery(till, receiver.url)
        await job.run()
        assert len(receiver.received) == deliver_events.FAILURES_MAX
        receiver.script.clear()
        till.clock.ms += HOUR_MS
        await job.run()  # more than fit into one look
    assert {event.delivered_at_ms for event in await events(till)} == {till.clock.ms}


async def test_retry_after_is_waited_for_up_to_an_hour(till: Till) -> None:
    await record(till, "one")
    async with Receiver(429, 429) as receiver:
        receiver.headers = "Retry-After: 1800\r\n"
        job = delivery(till, receiver.url)
        await job.run()
        till.clock.ms += 1_800_000 - 1
        await job.run()
        assert len(receiver.received) == 1
        receiver.headers = "Retry-After: 99999999\r\n"
        till.clock.ms += 60_000
        await job.run()
        assert len(receiver.received) == 2
        till.clock.ms += HOUR_MS
        await job.run()
    assert len(receiver.received) == 3


async def test_after_three_days_it_is_given_up_and_stays_on_record(
    till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    await record(till, "old")
    begin_ms = till.clock.ms
    async with Receiver(*[500] * 10_000) as receiver:
        job = delivery(till, receiver.url)
        with caplog.at_level(logging.WARNING):
            while not (await events(till))[0].given_up:
                await job.run()
                till.clock.ms += 4 * HOUR_MS
                assert till.clock.ms - begin_ms <= TRIED_MS_MAX + 5 * HOUR_MS
        tries = len(receiver.received)
        assert tries >= 18
        assert "given up" in caplog.text
        await record(till, "old", kind="credit_100")
        receiver.script.clear()
        await job.run()
    old, new = await events(till)
    assert len(receiver.received) == tries + 1  # what is given up stands in nobody's way
    assert (old.delivered_at_ms, old.attempts) == (None, tries)
    assert new.delivered_at_ms == till.clock.ms


async def test_a_webhook_that_is_set_up_later_does_not_get_what_is_long_past(till: Till) -> None:
    await record(till, "long ago")
    till.clock.ms += TRIED_MS_MAX + 1
    await record(till, "just now")
    async with Receiver() as receiver:
        await delivery(till, receiver.url).run()
        await delivery(till, receiver.url).run()
    assert [got.json["subject"]["id"] for got in receiver.received] == ["just now"]
    assert [event.given_up for event in await events(till)] == [True, False]


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    async with Receiver(500) as receiver:
        async with open_till(tmp_path) as till:
            await record(till, "one", "two")
            await delivery(till, receiver.url).run()
            assert [event.delivered_at_ms is None for event in await events(till)] == [True, False]
        async with open_till(tmp_path) as till:
            till.clock.ms += HOUR_MS
            await delivery(till, receiver.url).run()
            first = (await events(till))[0]
            assert first.delivered_at_ms == till.clock.ms
            await delivery(till, receiver.url).run()
    ids = [got.headers["webhook-id"] for got in receiver.received]
    assert ids[0] == ids[-1]
    assert len(set(ids)) == 2


async def test_a_database_that_takes_no_writes_ends_it(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(till, "one")

    async def refuse(*_: object) -> None:
        raise LedgerUnavailable("gone")

    monkeypatch.setattr(till.services.events, "delivered", refuse)
    async with Receiver() as receiver:
        job = delivery(till, receiver.url)
        with pytest.raises(LedgerUnavailable):
            await job.run()
        await job.run()
        assert len(receiver.received) == 1


async def test_it_is_in_the_table_of_jobs(till: Till) -> None:
    await record(till, "one")
    async with Receiver() as receiver:
        crew = Crew(
            database=till.database,
            ledger=till.services.ledger,
            clock=LedgerClock(SystemClock()),
            resolution=cast(Any, None),
            delivery=delivery(till, receiver.url),
        )
        (job,) = [job for job in table(crew) if job.name == "deliver events"]
        assert job.every_s == 15
        await job.run()
        assert len(receiver.received) == 1
    without = dataclasses.replace(crew, delivery=None)
    assert "deliver events" not in [job.name for job in table(without)]


async def test_the_configuration_says_where_to_and_with_which_secret(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "whsec_" + base64.b64encode(KEY).decode())
    await record(till, "one")
    async with Receiver() as receiver:
        webhook = {"url": receiver.url, "secret": "env:HOOK_SECRET"}
        config = parse({"webhook": webhook}, source="test")
        job = parts.delivery_of(config, till.services)
        assert job is not None
        await job.run()
    got = receiver.received[0]
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac_sha256(KEY, signed)).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert parts.delivery_of(parse({}, source="test"), till.services) is None
    monkeypatch.delenv("HOOK_SECRET")
    with pytest.raises(ConfigError, match=r"webhook\.secret.*HOOK_SECRET"):
        parts.delivery_of(config, till.services)


async def test_nothing_due_asks_nobody(till: Till) -> None:
    await delivery(till, "http://127.0.0.1:1/nobody").run()
    assert await events(till) == []


def test_waits_grow_and_stay_within_an_hour() -> None:
    for attempts in (0, 1, 5, 8, 200):
        waits = [wait_ms(attempts) for _ in range(200)]
        bound = min(15_000 * 2**attempts, HOUR_MS)
        assert 0 < min(waits) <= max(waits) <= bound
        assert max(waits) > bound // 2  # one in 2**200 times it is not


def test_secrets_are_whsec_or_plain_text() -> None:
    encoded = base64.b64encode(KEY).decode()
    assert signing_key(f"whsec_{encoded}", where="webhook.secret") == KEY
    assert signing_key("correct horse", where="webhook.secret") == b"correct horse"
    with pytest.raises(ConfigError, match=r"webhook\.secret: .*base64"):
        signing_key("whsec_!", where="webhook.secret")


def test_the_conventions_own_example() -> None:
    """standard-webhooks/standard-webhooks, its libraries' test vector."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", where="")
    body = b'{"test": 2432232314}'
    found = deliver_events.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("url", ["ftp://host/x", "http://", "http://host:port/", "nonsense"])
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"webhook\.url"):
        webhook_to(url, None)
    assert webhook_to("http://10.0.0.1:9/x", "s") == Webhook(url="http://10.0.0.1:9/x", key=b"s")
