"""Other layouts of a model: made, measured, offered, and taken only when asked."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_runtime import fitting
from local_runtime.fitting import WORTH, Fit, Speed, accept, measure, quality_of, remembered
from local_runtime.store.blobs import StoreError
from local_runtime.store.catalog import Store
from local_runtime.store.gguf import read_header
from local_runtime.store.importing import import_path
from local_runtime.store.names import StoreName
from tests.local_runtime.calls import smollm_path

Q4_0 = 2  # ggml.h, enum ggml_type


def speed(layout: str, prompt: float, one: float, many: float) -> Speed:
    return Speed(layout=layout, bytes=1, prompt=prompt, one=one, many=many, agreement=90)


rates = st.floats(1, 10_000)
speeds = st.lists(st.builds(speed, st.sampled_from("AB"), rates, rates, rates), max_size=4)


@given(st.builds(speed, st.just("base"), rates, rates, rates), speeds)
def test_what_is_offered_is_worth_it(base: Speed, others: list[Speed]) -> None:
    fit = Fit(model="m", processor="p", threads=1, speeds=[base, *others])
    best = fit.best
    assert fit.gain(base) == pytest.approx(1)
    assert all(fit.gain(each) <= (fit.gain(best) if best else WORTH) for each in others)
    if best is not None:
        assert fit.gain(best) >= WORTH
        assert best is not base


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "models")
    import_path(store, smollm_path(), "acme/tiny:Q4_1", link=False)
    return store


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_measured_remembered_and_accepted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "ROUNDS", 1)
    manifest = store.get(StoreName("acme/tiny"))
    assert remembered(store, manifest) is None
    told: list[tuple[str, int, int]] = []
    fit = measure(store, manifest, ["Q4_0"], tell=lambda *each: told.append(each))
    base, other = fit.speeds
    assert (base.layout, base.agreement, other.layout) == ("Q4_1", 100, "Q4_0")
    assert all(rate > 0 for each in fit.speeds for rate in (each.prompt, each.one, each.many))
    assert other.bytes < base.bytes
    assert 30 < other.agreement < 100
    assert f"in {other.agreement:.0f} of 100 places" in quality_of(fit, other)
    making = [each for each in told if each[0] == "making Q4_0"]
    assert making[-1][1] == making[-1][2] == len(making) > 100
    assert remembered(store, manifest) == fit
    # Nothing has changed by that.
    assert [str(each.name) for each in store.every()] == ["acme/tiny:Q4_1"]
    assert not list(store.root.rglob("fitting-*"))

    taken = accept(store, manifest, "Q4_0")
    assert (str(taken.name), taken.parent) == ("acme/tiny:Q4_0-from-Q4_1", "Q4_1")
    assert (taken.licence, taken.source) == (manifest.licence, manifest.source)
    assert store.get(taken.name) == taken
    header = read_header(store.weights_path(taken))
    assert Q4_0 in {tensor.type_id for tensor in header.tensors}
    assert not list(store.root.rglob("fitting-*"))
    assert str(store.get(StoreName("acme/tiny")).name) == "acme/tiny:Q4_1"


def test_what_cannot_be_made_is_refused(store: Store) -> None:
    manifest = store.get(StoreName("acme/tiny"))
    with pytest.raises(StoreError, match="Q9_9 is not a layout"):
        accept(store, manifest, "Q9_9")
    assert len(store.every()) == 1
