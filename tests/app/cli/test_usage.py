"""``turnpike usage`` and ``turnpike usage rows``, over a real appliance with a few calls in it."""

import asyncio
import csv
import io
from pathlib import Path

import pytest
from msgspec.structs import replace

from app.boot import open_appliance
from app.cli.usage import _show_sums
from app.config import load
from app.ids import new_call_id
from app.ledger.entries import HoldRequest, Outcome, UsageRow
from app.metering.usage import UsageSummary
from tests.app.cli.terminal import Inside

_TEXTS = {"group", "label", "groups", "labels"}
_SUMMED = [name for name in UsageSummary.__struct_fields__ if name not in _TEXTS]


async def _calls(config_file: Path, data_dir: Path) -> None:
    async with open_appliance(load(config_file, str(data_dir)), serving=False) as appliance:
        services = appliance.services
        user = await services.users.add("ann", "pro")
        key, _ = await services.keys.create("ann", "=cmd|'x'")
        for n, model in enumerate(("acme/tiny", "acme/big", "acme/tiny")):
            call_id, now_ms = new_call_id(), services.clock.now_ms()
            await services.ledger.place_hold(
                HoldRequest(
                    call_id=call_id,
                    user_id=user.id,
                    key_id=key.id,
                    offers=(("mock", model),),
                    amount_nano_usd=100,
                    floor_nano_usd=100,
                    admitted_at_ms=now_ms,
                    expires_at_ms=now_ms + 60_000,
                )
            )
            row = UsageRow(
                call_id=call_id,
                at_ms=now_ms,
                user_id=user.id,
                key_id=key.id,
                payer_id=user.id,
                model=model,
                provider="mock",
                outcome=Outcome.COMPLETED,
                streamed=False,
                attempts=1,
                input_tokens=10,
                output_tokens=3,
            )
            await services.ledger.settle_hold(call_id, n + 1, row)


@pytest.fixture
def used(inside: Inside, config_file: Path) -> Inside:
    asyncio.run(_calls(config_file, inside.data_dir))
    return inside


def test_sums_by_one_and_by_several(used: Inside) -> None:
    assert used.out("usage") == (
        "MODEL\tCALLS\tINPUT_TOKENS\tOUTPUT_TOKENS\tCOMPUTE_S\tCOST\n"
        "acme/tiny\t2\t20\t6\t0.000\t$0.000000004\n"
        "acme/big\t1\t10\t3\t0.000\t$0.000000002\n"
    )
    (line,) = used.json("usage", "--by", "user")
    assert (line["label"], line["cost_nano_usd"]) == ("ann", 6)
    both = used.json("usage", "--by", "model", "--by", "user", "--since", "2026-01-01")
    assert [line["labels"]["user"] for line in both] == ["ann", "ann"]
    assert used.json("usage", "--until", "2026-01-01") == []


def test_other_quantities_have_a_column_where_there_are_any(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = UsageSummary(
        **dict.fromkeys(_SUMMED, 0),
        group="acme/voice",
        label="acme/voice",
        groups={"model": "acme/voice"},
        labels={"model": "acme/voice"},
    )
    line = replace(line, calls=2, characters=4096, audio_ms=61_500)
    _show_sums(("model",), [line, replace(line, characters=0, audio_ms=0)])
    assert capsys.readouterr().out == (
        "MODEL\tCALLS\tINPUT_TOKENS\tOUTPUT_TOKENS\tCHARACTERS\tAUDIO_S\tCOMPUTE_S\tCOST\n"
        "acme/voice\t2\t0\t0\t4096\t61.500\t0.000\t$0.00\n"
        "acme/voice\t2\t0\t0\t0\t0.000\t0.000\t$0.00\n"
    )


def test_sums_as_csv(used: Inside) -> None:
    rows = list(csv.DictReader(io.StringIO(used.out("usage", "--by", "key", "--csv"))))
    assert [(row["cost_usd"], row["calls"]) for row in rows] == [("0.000000006", "3")]
    assert rows[0]["key_name"].startswith("'=cmd|'x' (tp_")


def test_single_calls(used: Inside) -> None:
    lines = used.out("usage", "rows").splitlines()
    assert lines[0].split("\t")[:3] == ["TIME", "USER", "OFFER"]
    assert [line.split("\t")[2] for line in lines[1:]] == [
        "acme/tiny:mock",
        "acme/big:mock",
        "acme/tiny:mock",
    ]
    assert [row["cost_nano_usd"] for row in used.json("usage", "rows", "--limit", "2")] == [3, 2]
    rows = list(csv.DictReader(io.StringIO(used.out("usage", "rows", "--csv"))))
    assert [row["key_name"] for row in rows] == ["'=cmd|'x'"] * 3
    assert "no user named 'bob'" in used.refused("usage", "rows", "--user", "bob")
