"""The configuration file: defaults, and what a person is told about each kind of mistake."""

import sys
import tomllib
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest

from app import config_faults, config_routing, config_types
from app.config import Config, load, nano_usd, parse, secret
from app.config_rules import moment_ms
from app.errors import ConfigError
from app.starter import STARTER_MODEL

PROVIDER = '[[providers]]\nid = "mock"\nplugin = "openai_compatible"\n'
MODEL = '[[providers.models]]\nid = "acme/tiny"\n'
PRICE = 'price = { input = "0.20", output = "0.60" }\n'
DATED = '[[providers.models.prices]]\nfrom = "2026-12-01"\ninput = "0.10"\noutput = "0.30"\n'
MOCK = PROVIDER + MODEL


def parsed(text: str) -> Config:
    return parse(tomllib.loads(text), source="FILE")


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    return caught.value.message


def test_an_empty_file_is_a_whole_configuration() -> None:
    found = parsed("")
    assert found == Config()
    assert (found.server.host, found.server.port) == ("127.0.0.1", 8000)
    assert found.tiers["free"].monthly_credit_usd == "0.10"
    assert found.tiers["pro"].overage == "pay_as_you_go"


def test_a_shipped_tier_keeps_what_the_file_leaves_out() -> None:
    tiers = parsed('tiers.free.overage = "pay_as_you_go"\ntiers.gold.overage = "stop"').tiers
    assert tiers["free"].monthly_credit_usd == "0.10"
    assert tiers["pro"].monthly_credit_usd == "2.00"
    assert tiers["gold"].monthly_credit_usd == "0.00"


def test_the_fixed_shape_of_a_provider() -> None:
    found = parsed(PROVIDER + 'base_url = "http://127.0.0.1:1/v1"\n' + MODEL + PRICE)
    (model,) = found.providers[0].models
    assert model.price is not None
    assert (model.id, model.price.input, model.price.output) == ("acme/tiny", "0.20", "0.60")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('server.port = "a"', 'server.port: expected a whole number, found a string, "a"'),
        ("server.port = 65536", "server.port: expected a whole number, at most 65535"),
        ("server.host = 3", "server.host: expected a string in quotes, found a whole number, 3"),
        ("server.drain_seconds_max = inf", "server.drain_seconds_max: expected a number, at most"),
        ("server.drain_seconds_max = nan", "server.drain_seconds_max: expected a number, at least"),
        ("server.hots = 1", "server.hots: unknown key"),
        ("surprise = 1", "surprise: unknown key"),
        ("providers = [3]", "providers[0]: expected a table, found a whole number, 3"),
        ("tiers = 3", "tiers: expected a table"),
        ("tiers.free = 3", "tiers.free: expected a table"),
        ('tiers.free.overage = "x"', 'tiers.free.overage: expected "stop" or "pay_as_you_go"'),
        (
            "tiers.pro.monthly_credit_usd = 1",
            "tiers.pro.monthly_credit_usd: expected USD in quotes",
        ),
        ("tiers.gold.x = 1", "tiers.gold.x: unknown key"),
        ("tiers.Gold = {}", "tiers.Gold: expected a name of at most 64"),
        ('local.placement = "x"', 'local.placement: expected "inline" or "child" or "ray"'),
        ('[[providers]]\nid = "x"', "providers[0].plugin: missing"),
        (PROVIDER + PROVIDER, "providers[1].id: 'mock' is taken"),
        (PROVIDER.replace("mock", "local"), "providers[0].id: 'local' is taken"),
        (PROVIDER.replace('"mock"', '"mock\\n"'), "providers[0].id: expected a name"),
        (PROVIDER + MODEL, "providers[0].models[0].price: missing"),
        (
            'tiers.team.per = "desk"',
            'tiers.team.per: expected "account" or "seat", found a string, "desk"',
        ),
        ('tiers.pro.per = "seat"', 'tiers.pro.per: "seat", but only orgs have seats; add org = tr'),
        ('tiers.free.overage_limit_usd = "1"', "tiers.free.overage_limit_usd: given, but overage"),
        ('tiers.pro.price_usd = "-9"', "tiers.pro.price_usd: expected USD in quotes"),
        (
            'tiers.pro.features = ["ssso"]',
            'tiers.pro.features[0]: expected "sso" or "audit_log" or "resource_groups"',
        ),
        ("tiers.pro.invoice_days = -1", "tiers.pro.invoice_days: expected a whole number, at leas"),
        ("usage.keep_days = 0", "usage.keep_days: expected a whole number, at least 1"),
        ('webhook.url = "ftp://x"', 'webhook.url: expected a URL like "https://example.org/path"'),
        ("invoices.seller_address = 3", "invoices.seller_address: expected a list"),
        (PROVIDER + "billing = {}", "providers[0].billing.url: missing"),
        (
            PROVIDER + 'billing = { url = "http://h/b", request_id_header = "a b" }',
            'providers[0].billing.request_id_header: expected a header\'s name like "Inference-Id"',
        ),
        (MOCK + "price_per_second = 1", "providers[0].models[0].price_per_second: expected USD"),
        (
            MOCK + PRICE + 'price_per_second = "1"',
            "providers[0].models[0].price_per_second: given, but there is a price per token too",
        ),
        (MOCK + DATED + "free = true", "providers[0].models[0].prices[0].free: unknown key"),
        (MOCK + "free = true\n" + DATED, "providers[0].models[0].free: true, but there is a price"),
        (
            MOCK + DATED.replace('"0.10"', "0.10"),
            "providers[0].models[0].prices[0].input: expected USD in quotes",
        ),
        (
            MOCK + DATED.replace("2026-12-01", "soon"),
            'providers[0].models[0].prices[0].from: expected a date like "2026-12-01" (from mid',
        ),
        (
            MOCK + DATED.replace("2026-12-01", "2026-12-32"),
            "providers[0].models[0].prices[0].from: expected a date that there is, found "
            '"2026-12-32"',
        ),
        (MOCK + DATED + DATED, 'providers[0].models[0].prices[1].from: "2026-12-01" is not later'),
        (
            MOCK + DATED + DATED.replace("2026-12-01", "2026-12-01T01:00:00+02:00"),
            "providers[0].models[0].prices[1].from: ",
        ),
        (
            MOCK + DATED.replace('output = "0.30"', ""),
            "providers[0].models[0].prices[0]: give input and output",
        ),
        (
            MOCK + DATED + 'per_second = "1"',
            "providers[0].models[0].prices[0]: give input and output",
        ),
        (
            "local.hardware.prices = ["
            '{ from = "2026-12-01", price_usd_per_second = "1" },'
            '{ from = "2026-11-01", price_usd_per_second = "1" }]',
            'local.hardware.prices[1].from: "2026-11-01" is not later than the one before',
        ),
        (PROVIDER + MODEL + PRICE + MODEL + PRICE, "providers[0].models[1].id: 'acme/tiny' is li"),
        (PROVIDER + MODEL + PRICE + "free = true", "providers[0].models[0].free: true, but"),
        (
            PROVIDER + MODEL + PRICE.replace('"0.20"', "0.2"),
            "providers[0].models[0].price.input: expected USD in quotes, so that it is exact, "
            'like "0.20", found a number with a point, 0.2',
        ),
        (
            PROVIDER + MODEL + PRICE.replace("0.20", "-0.20"),
            "providers[0].models[0].price.input: expected USD in quotes",
        ),
        (
            'local.models = [{ id = "a/b", source = "https://x" }]',
            'local.models[0].source: expected "file:PATH" or "package:NAME/FILE"',
        ),
        (
            'local.models = [{id = "a/b", source = "fake:"}, {id = "a/b", source = "fake:"}]',
            "local.models[1].id: 'a/b' is listed twice",
        ),
    ],
)
def test_a_mistake_is_told_with_its_path(text: str, message: str) -> None:
    assert refused(text).startswith(f"FILE: {message}")


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ('"2026-12-01"', "2026-12-01T00:00:00Z"),
        ("2026-12-01", "2026-12-01T00:00:00Z"),
        ("2026-12-01T06:30:00", "2026-12-01T06:30:00Z"),
        ("2026-12-01 06:30:00Z", "2026-12-01T06:30:00Z"),
        ('"2026-12-01T06:30Z"', "2026-12-01T06:30:00Z"),
        ("2026-12-01T06:30:00+02:00", "2026-12-01T04:30:00Z"),
        ("2026-12-01T06:30:00.000Z", "2026-12-01T06:30:00Z"),
    ],
)
def test_a_date_is_utc_with_quotes_or_without(written: str, moment: str) -> None:
    found = parsed(MOCK + DATED.replace('"2026-12-01"', written))
    (dated,) = found.providers[0].models[0].prices
    expected = datetime.fromisoformat(moment).timestamp()
    assert moment_ms(dated.starts) == expected * 1000


def test_a_model_may_have_dated_prices_only() -> None:
    (model,) = parsed(MOCK + DATED).providers[0].models
    assert model.price is None
    assert [(dated.starts, dated.input) for dated in model.prices] == [("2026-12-01", "0.10")]


def test_the_billing_table_of_a_provider() -> None:
    (provider,) = parsed(PROVIDER + '[providers.billing]\nurl = "http://h/b"').providers
    assert provider.billing is not None
    assert provider.billing.request_id_header == "Inference-Id"
    assert not provider.trust_cost


def test_the_table_at_fault_is_named_among_several() -> None:
    told = refused('tiers.gold = { overage = "stop" }\ntiers.iron = { overage = "no" }')
    assert told.startswith("FILE: tiers.iron.overage: ")


def test_what_may_be_a_secret_is_not_repeated() -> None:
    told = refused(PROVIDER + "api_key = 987654321")
    assert "providers[0].api_key: expected a string" in told
    assert "987654321" not in told


def test_every_pattern_has_words() -> None:
    aliases = (
        *(config_types.Identifier, config_types.ModelName, config_types.Usd, config_types.Label),
        *(config_types.HttpUrl, config_types.HeaderName, config_types.Moment),
        *(config_routing.AliasName, config_routing.FileName, config_routing.Digest),
    )
    patterns = {get_args(alias)[1].pattern for alias in aliases}
    assert patterns <= set(config_faults.PATTERNS)


def test_load_says_which_file_and_why(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load(absent)
    broken = tmp_path / "broken.toml"
    broken.write_text("[server\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML: .*line 1"):
        load(broken)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'server.host = "\xe9"\n')
    with pytest.raises(ConfigError, match=r"latin\.toml: not valid TOML: .*utf-8"):
        load(latin)


def test_load_reads_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfserver.port = 8001\n")
    assert load(path).server.port == 8001


def test_the_data_directory_of_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('server.data_dir = "/elsewhere"\n', encoding="utf-8")
    assert load(path).data_dir() == Path("/elsewhere")
    assert load(path, data_dir=str(tmp_path)).data_dir() == tmp_path


def test_the_starter_model_is_served_where_nothing_else_is_configured() -> None:
    assert [model.id for model in parsed("").local_models()] == [STARTER_MODEL]
    assert parsed(PROVIDER + MODEL + PRICE).local_models() == []


def test_a_binary_without_the_starter_model_serves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert [model.id for model in parsed("").local_models()] == [STARTER_MODEL]
    monkeypatch.setattr("app.starter._PACKAGE", "a_package_that_is_not_here")
    assert parsed("").local_models() == []


def test_usd_become_exact_nano_usd() -> None:
    assert nano_usd("0.10") == 100_000_000
    assert nano_usd("0.000000001") == 1
    assert nano_usd("999999999.999999999") == 999_999_999_999_999_999


def test_secrets_come_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNPIKE_TEST_SECRET", " one \n")
    assert secret("env:TURNPIKE_TEST_SECRET", where="here") == "one"
    kept = tmp_path / "secret"
    kept.write_text("two\n", encoding="utf-8")
    assert secret(f"file:{kept}", where="here") == "two"
    assert secret(None, where="here") is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("env:TURNPIKE_TEST_ABSENT", "environment variable TURNPIKE_TEST_ABSENT is not set"),
        ("file:/nowhere/at/all", "cannot be read"),
        ("sk-literal", "found a literal value"),
        ("env:", "found a literal value"),
    ],
)
def test_a_secret_that_cannot_be_had_is_an_error(value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        secret(value, where="providers[0].api_key")
    assert caught.value.message.startswith("providers[0].api_key: ")
    assert message in caught.value.message
    assert "sk-literal" not in caught.value.message
