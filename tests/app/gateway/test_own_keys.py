"""The payer's own provider keys: used, never billed here, and never turned into a bill."""

from collections.abc import AsyncIterator, Mapping

import pytest

from app.errors import CallError, OutOfCredits, PermissionDenied
from app.identity.own_keys import OwnKey, OwnKeys
from app.identity.sealing import MasterKey, MasterKeys
from plugins.contract import AdapterError, Event, FailureKind, InferenceCall, Started
from tests.app.gateway.conftest import COST, MakeBench, Scripted, good, serve


class Safe(OwnKeys):
    """Own keys that are sealed as they are in earnest; notes go nowhere."""

    def __init__(self) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]  # nothing is written
        self.masters = MasterKeys(MasterKey(bytes(32)))
        self.noted: list[tuple[str, str]] = []
        self.use(self.masters)

    def give(self, provider: str, secret: str, *, paid_fallback: bool = False) -> OwnKey:
        draft = OwnKey(
            owner_id="user_1",
            provider=provider,
            id=f"pkey_{provider}",
            hint=None,
            paid_fallback=paid_fallback,
            set_by="user_1",
            created_at_ms=0,
            sealed=self.masters.seal("", ("x",)),
        )
        key = OwnKey(
            **{
                **{name: getattr(draft, name) for name in draft.__struct_fields__},
                "sealed": self.masters.seal(secret, draft.context),
            }
        )
        self.put(key)
        return key

    def note_use(self, key: OwnKey) -> None:
        self.noted.append((key.provider, "used"))

    def note_failure(self, key: OwnKey, kind: str) -> None:
        self.noted.append((key.provider, kind))


def refused(provider: str, kind: FailureKind) -> Scripted:
    async def fail(order: InferenceCall) -> AsyncIterator[Event]:
        if order.attempt_id:
            raise AdapterError(kind, "it did not go well")
        yield Started()

    return Scripted(provider, fail)


def keys(safe: Safe) -> Mapping[str, OwnKey]:
    return safe.of("user_1")


async def test_the_own_key_is_sent_and_nothing_is_charged(make_bench: MakeBench) -> None:
    safe, adapter = Safe(), Scripted("a", good)
    safe.give("a", "sk-mine")
    bench = make_bench(adapter, credit_nano_usd=0, own_keys=safe)
    await serve(bench, bench.call(own_keys=keys(safe)))
    pump = await serve(bench, bench.call(own_keys=keys(safe), stream=True))
    while await pump.take(1.0) is not None:
        pass
    assert [order.api_key for order in adapter.orders] == ["sk-mine"] * 2
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, 0)] * 2
    found = await bench.database.read("SELECT byok FROM series JOIN usage ON id = series_id")
    assert found == [(1,), (1,)]
    assert safe.noted == [("a", "used")] * 2


@pytest.mark.parametrize(
    ("kind", "error"),
    [(FailureKind.AUTH, PermissionDenied), (FailureKind.NO_CREDIT, OutOfCredits)],
)
async def test_a_failing_own_key_is_told_and_never_falls_through(
    make_bench: MakeBench, kind: FailureKind, error: type[CallError]
) -> None:
    safe, paid = Safe(), Scripted("b", good)
    safe.give("a", "sk-mine")
    bench = make_bench(refused("a", kind), paid, own_keys=safe)
    with pytest.raises(error) as caught:
        await serve(bench, bench.call(own_keys=keys(safe)))
    assert "'a'" in caught.value.message
    assert paid.orders == []
    assert safe.noted == [("a", kind)]
    assert bench.keys.pick("a") is not None  # the operator's keys are none the worse
    assert bench.health.healthy(("a", "acme/tiny"))


async def test_with_paid_fallback_the_next_offer_is_paid_for(make_bench: MakeBench) -> None:
    safe, paid = Safe(), Scripted("b", good)
    safe.give("a", "sk-mine", paid_fallback=True)
    bench = make_bench(refused("a", FailureKind.AUTH), paid, own_keys=safe)
    await serve(bench, bench.call(own_keys=keys(safe)))
    assert paid.orders[0].api_key is None
    assert await bench.usage_rows() == [("completed", "b", 2, 10, 5, COST)]


async def test_with_paid_fallback_a_key_that_works_costs_nothing(make_bench: MakeBench) -> None:
    safe = Safe()
    safe.give("a", "sk-mine", paid_fallback=True)
    bench = make_bench(Scripted("a", good), Scripted("b", good), own_keys=safe)
    await serve(bench, bench.call(own_keys=keys(safe)))
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, 0)]
    assert bench.ledger.open_holds() == 0


async def test_a_row_that_was_altered_is_not_sent(make_bench: MakeBench) -> None:
    safe, adapter = Safe(), Scripted("a", good)
    key = safe.give("a", "sk-mine")
    safe.put(OwnKey(**{**{n: getattr(key, n) for n in key.__struct_fields__}, "id": "pkey_other"}))
    bench = make_bench(adapter, own_keys=safe)
    with pytest.raises(PermissionDenied):
        await serve(bench, bench.call(own_keys=keys(safe)))
    assert adapter.orders == []
