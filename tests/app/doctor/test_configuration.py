"""What a start would refuse after it has read the file: secrets, plugins, providers."""

from pathlib import Path

import pytest

from app.config_survey import survey_file
from app.doctor.configuration import check_configuration
from app.doctor.finding import Finding, Severity

PROVIDER = """
[[providers]]
id = "a"
plugin = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
"""


def found(tmp_path: Path, text: str) -> list[Finding]:
    file = tmp_path / "c.toml"
    file.write_text(text)
    return check_configuration(survey_file(file, str(tmp_path / "data")), file)


def lines(tmp_path: Path, text: str) -> list[tuple[str, str | None, int | None]]:
    return [(each.code, each.path, each.line) for each in found(tmp_path, text)]


def test_a_file_that_is_right(tmp_path: Path) -> None:
    assert lines(tmp_path, PROVIDER) == [("config.ok", None, None)]
    assert check_configuration(survey_file(None), None)[0].code == "config.ok"


def test_secrets_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    monkeypatch.setenv("PRESENT_KEY", "k")
    text = PROVIDER + (
        'api_key = "env:ABSENT_KEY"\n'
        'api_keys = [{ key = "env:PRESENT_KEY" }, { key = "sk-literal" }]\n'
        '[local.hub]\ntoken = "env:ABSENT_KEY"\n'
        '[webhook]\nurl = "http://h/x"\nsecret = "file:/nowhere/at/all"\n'
    )
    told = found(tmp_path, text)
    assert [(each.code, each.path, each.line) for each in told] == [
        ("secret.missing", "providers[0].api_key", 6),
        ("secret.literal", "providers[0].api_keys[1].key", 7),
        ("secret.missing", "local.hub.token", 9),
        ("secret.missing", "webhook.secret", 12),
    ]
    # A start does without the token.
    assert [each.severity for each in told].index(Severity.WARNING) == 2
    assert "sk-literal" not in str(told)
    assert "line 6" in told[0].fix


def test_what_plugins_refuse(tmp_path: Path) -> None:
    text = (
        '[[providers]]\nid = "a"\nplugin = "nobody"\n'
        '[[providers]]\nid = "b"\nplugin = "openai_compatible"\n'
        '[[providers]]\nid = "c"\nplugin = "echo"\nsettings = { word_delay_ms = "x" }\n'
        '[[providers]]\nid = "d"\nplugin = "openai_compatible"\nbase_url = "ftp://x"\n'
    )
    assert lines(tmp_path, text) == [
        ("provider.refused", "providers[0].plugin", 3),
        ("provider.refused", "providers[1]", 4),
        ("provider.refused", "providers[2].settings", 10),
        ("provider.refused", "providers[3]", 11),
    ]


def test_places_are_those_of_the_file_though_others_are_wrong(tmp_path: Path) -> None:
    text = '[[providers]]\nid = 3\nplugin = "echo"\n' + PROVIDER.replace("openai_compatible", "no")
    assert lines(tmp_path, text) == [
        ("config.wrong_value", "providers[0].id", 2),
        ("provider.refused", "providers[1].plugin", 7),
    ]


def test_networks_plugin_folders_webhooks_and_master_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines(tmp_path, '[egress]\nallowed_networks = ["10.0.0.1/8"]\n') == [
        ("egress.refused", "egress.allowed_networks[0]", 2)
    ]
    assert lines(tmp_path, '[plugins]\nfolder = "/nowhere/at/all"\n') == [
        ("plugins.refused", "plugins", 1)
    ]
    monkeypatch.setenv("NO_KEY", "whsec_%%%")
    assert lines(tmp_path, '[webhook]\nurl = "http://h/x"\nsecret = "env:NO_KEY"\n') == [
        ("webhook.refused", "webhook.secret", 3)
    ]
    assert lines(tmp_path, '[secrets]\nmaster_key = "env:NO_KEY"\n') == [
        ("secrets.refused", "secrets.master_key", 2)
    ]


def test_where_the_log_goes(tmp_path: Path) -> None:
    assert lines(tmp_path, f'[logs]\nfile = "{tmp_path}/t.log"\n') == [("config.ok", None, None)]
    assert not (tmp_path / "t.log").exists()
    assert lines(tmp_path, f'[logs]\nfile = "{tmp_path}/none/t.log"\n') == [
        ("logs.refused", "logs.file", 2)
    ]
    assert lines(tmp_path, f'[logs]\nfile = "{tmp_path}"\n') == [("logs.refused", "logs.file", 2)]


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    assert lines(tmp_path, "[server]\nport = = 3\n") == [("config.unreadable", None, 2)]
