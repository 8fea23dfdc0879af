"""The alert rules ask for what there is, fire when they should, and say what to do."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types of its own

from app.ledger.entries import Outcome
from plugins.contract import FailureKind
from tests.packaging.monitoring.fires import FIRES, HEALTHY
from tests.packaging.monitoring.metrics import MONITORING, told
from tests.packaging.monitoring.promql import ALWAYS, faults, labels_of, used

PATH = MONITORING / "alerts.yml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(PATH.read_text(encoding="utf-8"))["groups"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"]
}
DURATION = re.compile(r"[0-9]+[smhd]")
PROMTOOL = shutil.which("promtool")
VALUES: dict[str, set[str]] = {
    "outcome": {str(each) for each in Outcome},
    "kind": {str(each) for each in FailureKind},
    "status": {"402"},
    "class": {"2xx", "3xx", "4xx", "5xx"},
    "file": {"database", "wal"},
    "job": {"turnpike"},
}
each = pytest.mark.parametrize("rule", ALERTS.values(), ids=ALERTS)


def test_no_alert_has_the_name_of_another() -> None:
    assert len(ALERTS) == sum(len(group["rules"]) for group in GROUPS)
    assert len({group["name"] for group in GROUPS}) == len(GROUPS)


@each
def test_it_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    assert faults(rule["expr"], told()) == []


@each
def test_the_values_that_it_looks_for_exist(rule: dict[str, Any]) -> None:
    for selector in used(rule["expr"]).selectors:
        for label, value in selector.matchers.items():
            if label in VALUES:
                assert set(value.split("|")) <= VALUES[label]


@each
def test_it_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Turnpike[A-Z][A-Za-z]+", rule["alert"])
    assert DURATION.fullmatch(rule["for"])
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert len(rule["annotations"]["description"]) > 100
    found = used(rule["expr"])
    labels = found.kept
    if labels is None:
        sets = [labels_of(selector.metric, told()) or set() for selector in found.selectors]
        labels = set.intersection(*sets) | ALWAYS
    named = re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))
    assert set(named) <= labels


@each
def test_the_commands_that_it_names_exist(rule: dict[str, Any]) -> None:
    from app.cli.main import turnpike

    for words in re.findall(r"`turnpike ([a-z]+)( [a-z]+)?", rule["annotations"]["description"]):
        command = turnpike.commands[words[0]]
        inner = getattr(command, "commands", None)
        assert inner is None or not words[1] or words[1].strip() in inner


def test_a_healthy_world_and_a_case_for_each_alert_are_described() -> None:
    assert set(FIRES) == set(ALERTS)
    for series in (*HEALTHY, *(series for fires in FIRES.values() for series in fires.series)):
        assert faults(series, told()) == []


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus")
@pytest.mark.parametrize("name", [None, *ALERTS])
def test_prometheus_itself_fires_it_when_it_should_and_not_before(
    name: str | None, tmp_path: Path
) -> None:
    changed = {} if name is None else FIRES[name].series
    series = [
        {"series": series, "values": values} for series, values in {**HEALTHY, **changed}.items()
    ]
    at = "3h" if name is None else FIRES[name].at
    cases = [
        {
            "eval_time": at,
            "alertname": alert,
            "exp_alerts": [{"exp_labels": labels}] if (labels := expected(name, alert)) else [],
        }
        for alert in ALERTS
        if alert == name or name is None or alert not in FIRES[name].others
    ]
    suite = {
        "rule_files": [str(PATH)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": cases}],
    }
    # Without its annotations an alert would not be equal to what is expected.
    bare = {
        "groups": [{**group, "rules": [plain(rule) for rule in group["rules"]]} for group in GROUPS]
    }
    (tmp_path / "bare.yml").write_text(yaml.safe_dump(bare))
    suite["rule_files"] = ["bare.yml"]
    (tmp_path / "suite.yml").write_text(yaml.safe_dump(suite))
    assert PROMTOOL is not None
    for command in (["check", "rules", str(PATH)], ["test", "rules", "suite.yml"]):
        done = subprocess.run(
            [PROMTOOL, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def expected(name: str | None, alert: str) -> dict[str, str] | None:
    """The labels of the alert that fires, where it is the one that is tried."""
    if name != alert:
        return None
    return {**FIRES[alert].labels, "severity": ALERTS[alert]["labels"]["severity"]}


def plain(rule: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in rule.items() if key != "annotations"}
