"""Listings of models, in every form that providers give them."""

import json
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.contract import AdapterError, Discovering, FailureKind, ModelEntry, Price
from plugins.openai_compatible.adapter import DiscoveringAdapter
from plugins.openai_compatible.discovery import ITEMS_MAX, read_listing
from plugins.openai_compatible.listed_prices import price_of
from plugins.openai_compatible.plugin import PLUGIN
from plugins.openai_compatible.preset import PriceForm
from plugins.openai_compatible.presets import GENERIC, PRESETS
from tests.plugins.conftest import API_KEY, make_toolbox
from tests.plugins.openai_compatible.test_presets import PLUGINS, open_preset
from tests.upstreams.listings import LISTINGS
from tests.upstreams.scenes import SCENES
from tests.upstreams.serving import Asked, Reply, Serving

PRESET_OF = {preset.name: preset for preset in PRESETS}
HELD = {"tools", "tool_choice", "response_format", "structured_outputs", "reasoning_effort"}


@pytest.mark.parametrize("name", sorted(LISTINGS))
async def test_each_form_of_listing(name: str) -> None:
    listing, expected = LISTINGS[name]
    async with open_preset(name, listing) as (adapter, server):
        assert isinstance(adapter, Discovering)
        (entry,) = await adapter.discover(API_KEY)
        offer = adapter.offer_of(entry)
    asked = server.asked[-1]
    listed = PRESET_OF[name].listing
    assert listed is not None
    assert asked.target.endswith(listed.path)
    assert asked.method == "GET"
    assert entry.tasks == ("conversational",)
    for field, value in {"upstream_id": entry.id, **expected}.items():
        assert getattr(entry, field) == value, field
    assert (offer.model, offer.provider, offer.price) == (entry.id, name, entry.price)
    own = entry.supported_params
    assert offer.supported_params == (PRESET_OF[name].params if own is None else own)


def read(listing: Any, name: str = "openai") -> list[ModelEntry]:
    return read_listing(json.dumps(listing).encode(), PRESET_OF[name])


def test_openrouter_s_own_list_of_parameters_counts() -> None:
    (entry,) = read(LISTINGS["openrouter"][0], "openrouter")
    assert entry.supported_params is not None
    assert HELD & entry.supported_params == {"tools", "reasoning_effort"}
    assert {"top_k", "stream", "max_tokens"} <= entry.supported_params
    assert "top_a" not in entry.supported_params


def test_features_that_a_listing_does_not_name_are_lacking() -> None:
    (entry,) = read(LISTINGS["groq"][0], "groq")
    assert entry.supported_params is not None
    assert HELD & entry.supported_params == HELD - {"structured_outputs"}
    (entry,) = read(LISTINGS["baseten"][0], "baseten")
    assert entry.supported_params == PRESET_OF["baseten"].params


def test_hf_s_abilities_count() -> None:
    (entry,) = read(LISTINGS["hf_router"][0], "hf_router")
    assert entry.supported_params is not None
    assert not {"tools", "tool_choice"} & entry.supported_params
    assert {"structured_outputs", "temperature"} <= entry.supported_params


def test_a_router_without_prices_is_called_by_the_plain_name() -> None:
    listing = {"data": [{"id": "a/b", "providers": [{"provider": "x", "status": "live"}]}]}
    (entry,) = read(listing, "hf_router")
    assert (entry.upstream_id, entry.price) == ("a/b", Price())


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("gpt-5", "conversational"),
        ("text-embedding-3-small", "feature-extraction"),
        ("BAAI/bge-m3", "feature-extraction"),
        ("whisper-1", "automatic-speech-recognition"),
        ("gpt-4o-transcribe", "automatic-speech-recognition"),
        ("tts-1", "text-to-speech"),
        ("gpt-4o-mini-tts", "text-to-speech"),
        ("dall-e-3", "text-to-image"),
        ("sora-2", "text-to-video"),
        ("omni-moderation-latest", None),
        ("gpt-realtime", None),
        ("attsomething", "conversational"),
    ],
)
def test_where_nothing_else_says_it_the_name_tells_the_task(model: str, task: str | None) -> None:
    entries = read({"data": [{"id": model}]})
    assert [entry.tasks for entry in entries] == ([(task,)] if task else [])


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("chat", "conversational"),
        ("embedding", "feature-extraction"),
        ("image", "text-to-image"),
        ("rerank", None),
    ],
)
def test_together_says_what_a_model_does(kind: str, task: str | None) -> None:
    entries = read([{"id": "m", "type": kind}], "together")
    assert [entry.tasks for entry in entries] == ([(task,)] if task else [])


def test_zero_is_free_only_where_everything_is_priced() -> None:
    zero = {"pricing": {"prompt": "0", "completion": "0"}}
    assert read({"data": [{"id": "m", **zero}]}, "openrouter")[0].price == Price(free=True)
    nothing = {"pricing": {"input": 0, "output": 0}}
    assert read([{"id": "m", "type": "chat", **nothing}], "together")[0].price == Price()


@pytest.mark.parametrize(
    "pricing",
    [
        {},
        None,
        [],
        "0.1",
        {"prompt": "0.1"},
        {"completion": "0.1"},
        {"prompt": "-1", "completion": "-1"},
        {"prompt": "free", "completion": "0"},
        {"prompt": "NaN", "completion": "0.1"},
        {"prompt": "Infinity", "completion": "0.1"},
        {"prompt": "1e999999999", "completion": "0.1"},
        {"prompt": 1e300, "completion": 0.1},
        {"prompt": 10**60, "completion": 0.1},
        {"prompt": True, "completion": True},
        {"prompt": {"usd": 1}, "completion": "0.1"},
        {"prompt": "0.000001", "completion": "0.000001", "input_cache_read": "-1"},
        {"prompt": "0." + "1" * 80, "completion": "0.1"},
    ],
)
def test_prices_that_make_no_sense_are_none(pricing: Any) -> None:
    entries = read({"data": [{"id": "m", "pricing": pricing}]}, "openrouter")
    assert entries[0].price == Price()


amounts = st.decimals(0, 1000, allow_nan=False, allow_infinity=False, places=9)


@given(amounts, amounts, st.booleans())
def test_prices_are_exact(per_input: Decimal, per_output: Decimal, as_text: bool) -> None:
    """From the text of a JSON number to nano-USD per million without a float between."""
    said = '"{}"' if as_text else "{}"
    first, second = (said.format(f"{amount:f}") for amount in (per_input, per_output))
    pricing = f'{{"input": {first}, "output": {second}}}'
    body = f'[{{"id": "m", "type": "chat", "pricing": {pricing}}}]'
    price = read_listing(body.encode(), PRESET_OF["together"])[0].price
    exact = [int(amount * 10**9) for amount in (per_input, per_output)]
    assert [price.input, price.output] == exact


@given(st.decimals(0, 1, allow_nan=False, allow_infinity=False))
def test_finer_prices_are_rounded_up(each: Decimal) -> None:
    text = str(abs(each))
    item = {"pricing": {"prompt": text, "completion": "1"}}
    found = price_of(item, PriceForm.EACH, complete=True)
    if len(text) > 64:
        assert found == Price()
    else:
        assert found.input == (abs(each) * 10**15).to_integral_value(ROUND_CEILING)


@pytest.mark.parametrize(
    "item",
    [
        7,
        None,
        {},
        {"id": None},
        {"id": ""},
        {"id": "x" * 257},
        {"id": "a\nb"},
        {"id": 5},
    ],
)
def test_items_that_are_no_models_are_left_out(item: Any) -> None:
    assert [entry.id for entry in read({"data": [item, {"id": "m"}, {"id": "m"}]})] == ["m"]


@pytest.mark.parametrize(
    "item",
    [
        {"context_length": -1, "context_window": 8},
        {"context_length": "8"},
        {"context_length": 8.5, "max_model_len": 8},
        {"context_length": 10**12, "meta": {"n_ctx": 8, "n_ctx_train": 9}},
        {"context_length": True, "metadata": {"context_length": 8}},
        {"top_provider": {"context_length": 8}, "context_length": 9},
    ],
)
def test_lengths_that_make_no_sense_are_passed_over(item: dict[str, Any]) -> None:
    assert read({"data": [{"id": "m", **item}]})[0].context_length == 8


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "id",
                        "type",
                        "pricing",
                        "input",
                        "output",
                        "prompt",
                        "completion",
                        "providers",
                    ),
                    *("status", "metadata", "architecture", "input_modalities", "capabilities"),
                    *(
                        "supported_parameters",
                        "supported_features",
                        "top_provider",
                        "meta",
                        "active",
                    ),
                ]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=4), st.sampled_from([GENERIC, *PRESETS]))
def test_no_listing_breaks_the_reading(items: list[Any], preset: Any) -> None:
    for entry in read_listing(json.dumps({"data": items}).encode(), preset):
        assert 0 < len(entry.id) <= 256
        assert entry.price.input >= 0


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"7", b"{}", b'{"data": {}}', b"<html>", b"\xff", b"[" * 5000],
)
def test_what_is_no_listing_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_listing(body, GENERIC)


def test_too_many_models_are_refused() -> None:
    items = [{"id": f"m{n}"} for n in range(ITEMS_MAX + 1)]
    assert len(read({"data": items[:-1]})) == ITEMS_MAX
    with pytest.raises(ValueError, match="more than 20000"):
        read({"data": items})


@pytest.mark.parametrize(
    ("scene", "kind"),
    [
        ("unauthorised", FailureKind.AUTH),
        ("rate_limited", FailureKind.RATE_LIMITED),
        ("server_error", FailureKind.UPSTREAM),
        ("not_found", FailureKind.NOT_FOUND),
        ("html", FailureKind.PROTOCOL),
        ("garbage", FailureKind.PROTOCOL),
        ("redirect", FailureKind.UPSTREAM),
    ],
)
async def test_listings_that_fail(scene: str, kind: FailureKind) -> None:
    played = SCENES[scene]

    async def play(_: Asked, reply: Reply) -> None:
        await reply.answer(played.status, played.body or b"", played.headers)

    async with Serving(play) as server:
        adapter = PLUGIN.build(PLUGIN.settings(base_url=server.origin), make_toolbox())
        assert isinstance(adapter, DiscoveringAdapter)
        await adapter.start()
        with pytest.raises(AdapterError) as caught:
            await adapter.discover("sk-secret-1")
        assert caught.value.kind is kind
        assert "sk-secret-1" not in caught.value.detail + caught.value.message
        await adapter.close()


def test_azure_lists_nothing() -> None:
    plugin = PLUGINS["azure_openai"]
    adapter = plugin.build(plugin.settings(base_url="https://h/openai/v1"), make_toolbox())
    assert not isinstance(adapter, Discovering)
