"""What a site is told: prices as they are here, models as they are served here."""

import tomllib
from typing import Literal

import pytest

from app.config import Config, parse
from app.config_carried import overlaid
from app.site_bundle.carrying import carried_of
from local_runtime.store.catalog import Manifest, StoredFile
from tests.app.site_bundle.carried import CONFIG


def manifest(
    name: str, variant: str = "Q4_0", form: Literal["gguf", "safetensors"] = "gguf"
) -> Manifest:
    file = StoredFile(name=f"m.{form}", bytes=1, sha256="0" * 64, role="weights")
    return Manifest(id=name, variant=variant, format=form, files=[file], source="x", at_ms=1)


def config(text: str) -> Config:
    return parse(tomllib.loads(text), source="test")


def served(text: str, *models: Manifest) -> tuple[list[dict[str, object]], list[str]]:
    carried, left_out = carried_of(config(text), models, 7)
    assert carried.at_ms == 7
    return carried.models, left_out


@pytest.mark.parametrize("source", ["store:a/one", "store:a/one:q4_0", "hf:a/one", "hf:a/one:Q4_0"])
def test_a_model_is_served_as_it_is_here_from_what_was_carried(source: str) -> None:
    text = f'[[local.models]]\nid = "acme/x"\nsource = "{source}"\nparallel = 2\nthreads = 9\n'
    assert served(text, manifest("a/one")) == (
        [{"id": "acme/x", "source": "store:a/one:Q4_0", "parallel": 2}],
        [],
    )


def test_another_variant_is_another_model() -> None:
    text = '[[local.models]]\nid = "acme/x"\nsource = "store:a/one:Q8_0"\n'
    models, _ = served(text, manifest("a/one"), manifest("a/one", "Q8_0"), manifest("a/one", "F16"))
    assert [(each["id"], each["source"]) for each in models] == [
        ("a/one", "store:a/one:Q4_0"),
        ("acme/x", "store:a/one:Q8_0"),
        ("a/one-F16", "store:a/one:F16"),
    ]


def test_files_of_this_machine_stay_here_and_that_is_said() -> None:
    text = '[[local.models]]\nid = "acme/x"\nsource = "store:a/one"\nprojector = "file:/p.gguf"\n'
    models, left_out = served(text, manifest("a/one"))
    assert models == [{"id": "acme/x", "source": "store:a/one:Q4_0"}]
    assert left_out == ["acme/x: its projector, which are files of this machine"]


def test_what_not_every_edition_serves_is_served_only_where_it_is_here() -> None:
    other = manifest("a/two", "safetensors", "safetensors")
    models, left_out = served("", other)
    assert models == []
    assert "a/two:safetensors is carried, and served only where" in left_out[0]
    text = '[[local.models]]\nid = "acme/y"\nsource = "store:a/two"\n'
    assert [each["id"] for each in served(text, other)[0]] == ["acme/y"]


def test_prices_come_out_as_they_went_in() -> None:
    here = config(CONFIG)
    carried, _ = carried_of(here, [], 0)
    bare = tomllib.loads(CONFIG)
    del bare["local"]
    for key in ("price", "prices"):
        del bare["providers"][0]["models"][0][key]
    there = parse(overlaid(bare, carried)[0], source="there")
    assert there.providers == here.providers
    assert there.local.hardware == here.local.hardware
