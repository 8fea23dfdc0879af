"""Who pays for a call and what they do not pay for, as far as the gateway has to do with it."""

import pytest

from app.errors import OutOfCredits, PermissionDenied
from app.ledger.entries import CreditTerms, Limit
from tests.app.gateway.conftest import COST, Bench, MakeBench, Scripted, good, serve

ORG = CreditTerms(tier="team", monthly_credit_nano_usd=10_000_000, overage=False)


async def payers(bench: Bench) -> list[tuple[object, ...]]:
    return await bench.database.read(
        "SELECT payer_id, group_id, user_id, provider, cost_nano_usd FROM usage"
        " JOIN series ON id = series_id ORDER BY call_id"
    )


async def test_the_payer_and_the_group_that_are_named_stand_on_the_row(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(Scripted("a", good))
    bench.standings.terms["org_acme"] = ORG
    await serve(bench, bench.call())
    await serve(bench, bench.call(bill_to="org_acme"))
    await serve(bench, bench.call(bill_to="org_acme#group_lab"))
    assert await payers(bench) == [
        ("user_1", "", "user_1", "a", COST),
        ("org_acme", "", "user_1", "a", COST),
        ("org_acme", "group_lab", "user_1", "a", COST),
    ]


async def test_a_payer_that_is_not_one_s_own_dispatches_nothing(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter)
    bench.standings.members["org_acme"] = {"user_2"}
    with pytest.raises(PermissionDenied):
        await serve(bench, bench.call(bill_to="org_acme"))
    assert adapter.orders == []
    assert await payers(bench) == []


async def test_providers_that_are_switched_off_are_passed_over(make_bench: MakeBench) -> None:
    first, second = Scripted("a", good), Scripted("b", good)
    bench = make_bench(first, second)
    bench.standings.providers_off["user_1"] = {"a": "no contract"}
    await serve(bench, bench.call())
    assert first.orders == []
    assert await payers(bench) == [("user_1", "", "user_1", "b", COST)]


async def test_where_all_providers_are_off_the_reason_is_told(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter)
    bench.standings.providers_off["user_1"] = {"a": "no contract"}
    with pytest.raises(PermissionDenied, match="no contract") as caught:
        await serve(bench, bench.call())
    assert caught.value.code == "provider_switched_off"
    bench = make_bench(Scripted("b", good))
    bench.standings.models_off["user_1"] = {"acme/tiny": "too dear"}
    await bench.database.write(lambda tx: None)  # as a switch does: the standing is asked anew
    with pytest.raises(PermissionDenied, match="too dear") as caught:
        await serve(bench, bench.call())
    assert caught.value.code == "model_switched_off"
    assert adapter.orders == []


async def test_a_spending_limit_of_any_scope_stops_a_call(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter)
    for number, scope in enumerate(("key", "user", "payer")):
        subject = "key_1" if scope == "key" else "user_1"
        bench.standings.limits = {(scope, subject): Limit(scope, subject, 1000, number)}
        await bench.database.write(lambda tx: None)
        with pytest.raises(OutOfCredits) as caught:
            await serve(bench, bench.call())
        assert caught.value.code == "spending_limit_reached"
    assert adapter.orders == []
