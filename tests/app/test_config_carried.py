"""What a bundle carried fills gaps in a configuration, and never overrules it."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import load, parse
from app.config_carried import CARRIED_FILE, Carried, overlaid, read_carried
from app.config_survey import survey_file
from app.errors import ConfigError

PRICE = {"input": "0.20", "output": "0.60"}
CARRIED = Carried(
    at_ms=1,
    hardware={"name": "rack", "price_usd_per_second": "0.0003", "prices": []},
    prices={"lan": {"acme/tiny": {"price": PRICE}, "acme/free": {"free": True}}},
    models=[
        {"id": "acme/one", "source": "store:acme/one:Q4_0"},
        {"id": "acme/two", "source": "store:acme/two:Q4_0", "context_length": 512},
    ],
)
LAN = """
[[providers]]
id = "lan"
plugin = "openai_compatible"
base_url = "http://10.0.0.7/v1"
[[providers.models]]
id = "acme/tiny"
"""


def put(folder: Path, carried: Carried = CARRIED) -> None:
    folder.mkdir(exist_ok=True)
    (folder / CARRIED_FILE).write_bytes(msgspec.json.encode(carried))


def loaded(folder: Path, text: str) -> Any:
    file = folder / "config.toml"
    file.write_text(text)
    return load(file, str(folder / "data"))


def test_gaps_are_filled(tmp_path: Path) -> None:
    put(tmp_path / "data")
    config = loaded(tmp_path, LAN)
    assert config.local.hardware.price_usd_per_second == "0.0003"
    assert [each.id for each in config.local_models()] == ["acme/one", "acme/two"]
    assert config.providers[0].models[0].price.output == "0.60"


@pytest.mark.parametrize(
    "own",
    [
        'price = { input = "9", output = "9" }\n',
        'price_per_second = "9"\n',
        'free = true\n',
        '[[providers.models.prices]]\nfrom = "2031-01-01"\ninput = "9"\noutput = "9"\n',
    ],
)  # fmt: skip
def test_a_price_of_ones_own_stays(tmp_path: Path, own: str) -> None:
    put(tmp_path / "data")
    own_hardware = '[local.hardware]\nprice_usd_per_second = "7"\n'
    text = LAN + own + own_hardware
    with_it = loaded(tmp_path, text)
    assert with_it.providers == parse(tomllib.loads(text), source="").providers
    assert with_it.local.hardware.price_usd_per_second == "7"


def test_a_name_that_is_taken_stays_taken(tmp_path: Path) -> None:
    put(tmp_path / "data")
    mine = '[[local.models]]\nid = "acme/own"\nsource = "file:/m.gguf"\n'
    mine += '[[local.models.adapters]]\nid = "acme/one"\nsource = "file:/a.gguf"\n'
    config = loaded(tmp_path, mine)
    assert [each.id for each in config.local.models] == ["acme/own", "acme/two"]


def test_a_file_that_is_damaged_is_refused_and_named(tmp_path: Path) -> None:
    put(tmp_path / "data")
    path = tmp_path / "data" / CARRIED_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"carried\.json: damaged.*turnpike bundle apply"):
        loaded(tmp_path, "")
    found = survey_file(None, str(tmp_path / "data"))
    (fault,) = found.faults
    assert "turnpike bundle apply" in str(fault)
    assert found.config is not None
    assert found.config.data_dir() == tmp_path / "data"
    file = tmp_path / "lan.toml"
    file.write_text(LAN + "[server]\nport = -1\n")
    told = survey_file(file, str(tmp_path / "data")).faults
    assert [each.sort for each in told] == ["carried", "wrong"], "no price that was lost"
    path.unlink()
    told = survey_file(file, str(tmp_path / "data")).faults
    assert sorted(each.sort for each in told) == ["rule", "wrong"]
    put(tmp_path / "data", msgspec.structs.replace(CARRIED, format=2))
    with pytest.raises(ConfigError, match="newer Turnpike"):
        read_carried(tmp_path / "data")


def test_a_mistake_in_the_file_is_told_as_without_it(tmp_path: Path) -> None:
    put(tmp_path / "data")
    for wrong in ('local = "x"', "local = 0", '[local]\nmodels = "x"', '[local]\nhardware = 1',
                  'providers = "x"', "providers = [1]", '[[providers]]\nmodels = [3]'):  # fmt: skip
        raw = tomllib.loads(wrong)
        with pytest.raises(ConfigError) as alone:
            parse(raw, source="f")
        with pytest.raises(ConfigError) as beside:
            parse(overlaid(raw, CARRIED)[0], source="f")
        assert beside.value.message == alone.value.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "models", "hardware", "price", "free", "adapters", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["local", "providers", "server"]), VALUES, max_size=3))
def test_nothing_that_the_file_says_is_changed_or_lost(raw: dict[str, Any]) -> None:
    before = copy.deepcopy(raw)
    found, _ = overlaid(raw, CARRIED)
    assert raw == before
    assert_kept(before, found)


def assert_kept(before: Any, after: Any) -> None:
    if isinstance(before, dict):
        assert isinstance(after, dict)
        for key, value in before.items():
            assert_kept(value, after[key])
    elif isinstance(before, list):
        assert len(after) >= len(before)
        for one, other in zip(before, after, strict=False):
            assert_kept(one, other)
    else:
        assert before == after
