"""The dashboard can be imported by Grafana 10 and asks for what there is."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.monitoring.metrics import MONITORING, told
from tests.packaging.monitoring.promql import faults, labels_of

DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
TARGETS = [(panel, target) for panel in GRAPHS for target in panel["targets"]]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
PROMTOOL = shutil.which("promtool")


def variables() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in DASHBOARD["templating"]["list"]}


def test_it_is_a_dashboard_of_grafana_10_for_any_data_source() -> None:
    assert DASHBOARD["schemaVersion"] >= 38
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "turnpike"
    assert variables()["datasource"]["type"] == "datasource"
    assert variables()["datasource"]["query"] == "prometheus"
    used = {panel["type"] for panel in GRAPHS}
    assert used <= {each["id"] for each in DASHBOARD["__requires"] if each["type"] == "panel"}
    for panel, target in TARGETS:
        assert panel["datasource"] == target["datasource"] == SOURCE
    for each in (*DASHBOARD["annotations"]["list"], *variables().values()):
        assert each.get("datasource", SOURCE) == SOURCE


def test_its_rows_are_those_that_an_operator_looks_for() -> None:
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Money", "Local models", "Ledger and disk", "Process"]


@pytest.mark.parametrize(("panel", "target"), TARGETS, ids=lambda part: part.get("title"))
def test_each_expression_asks_for_what_there_is(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    expression = target["expr"]
    assert faults(expression, told()) == [], panel["title"]
    assert set(re.findall(r"\$(\w+)", expression)) <= {*variables(), "__rate_interval"}
    # A counter by itself says only how long ago the last start was.
    for counter in re.findall(r"\b(\w+_total)\b", expression):
        assert re.search(rf"(rate|increase)\({counter}\b", expression)


def test_each_series_is_named_by_labels_that_it_has() -> None:
    for panel, target in TARGETS:
        by = re.search(r"\bby \(([^)]*)\)", target["expr"])
        if by is None:
            metric = re.findall(r"\b((?:turnpike|process)_\w+)", target["expr"])[0]
            added_up = re.match(r"(sum|max|min|histogram_quantile)\(", target["expr"])
            labels = set() if added_up else labels_of(metric, told()) or set()
        else:
            labels = {label.strip() for label in by[1].split(",")}
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= labels, (panel["title"], target["expr"])


def test_variables_and_annotations_ask_for_what_there_is() -> None:
    for name, each in variables().items():
        if name == "datasource":
            continue
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", each["query"]["query"])
        assert asked is not None
        assert asked[2] in (labels_of(asked[1], told()) or set())
    for each in DASHBOARD["annotations"]["list"]:
        assert faults(each["expr"], told()) == []


def test_panels_have_ids_of_their_own_and_lie_beside_each_other() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in itertools.combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    for panel in PANELS:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS
        targets = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(targets)) == len(targets)


def test_nearly_every_metric_is_shown() -> None:
    shown = " ".join(target["expr"] for _, target in TARGETS)
    hidden = {name for name in told() if not re.search(rf"\b{name}(_bucket|_count|\b)", shown)}
    assert hidden == {
        "turnpike_problem",  # has its alert
        "turnpike_local_kept_tokens",
        "turnpike_local_load_seconds_total",
        "turnpike_compute_nanoseconds_total",
        "process_virtual_memory_bytes",
    }


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus")
def test_prometheus_itself_can_read_each_expression(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel:{panel['id']}:{target['refId']}",
            "expr": target["expr"].replace("$__rate_interval", "5m").replace("$", ""),
        }
        for panel, target in TARGETS
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout
