"""The reader of expressions sees what the tests of alerts and dashboards rely on."""

import pytest

from tests.packaging.monitoring.metrics import Described
from tests.packaging.monitoring.promql import Selector, faults, used

KNOWN = {
    "calls_total": Described("counter", frozenset({"model", "outcome"})),
    "took_seconds": Described("histogram", frozenset({"model"})),
    "ready": Described("gauge", frozenset()),
}


@pytest.mark.parametrize(
    "expression",
    [
        "ready == 0",
        'up{job="turnpike"} == 0',
        'sum by (model) (rate(calls_total{outcome=~"a|b"}[5m])) > 1e3 and ready',
        "histogram_quantile(0.9, sum by (model, le) (rate(took_seconds_bucket[$__interval])))",
        'rate(took_seconds_sum{instance=~"$i"}[5m]) / rate(took_seconds_count[5m] offset 1d)',
        "count without (model) (calls_total) > bool 3",
    ],
)
def test_what_is_there_is_no_fault(expression: str) -> None:
    assert faults(expression, KNOWN) == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("rate(calls[5m])", "there is no calls"),
        ('calls_total{outcom="x"}', "calls_total has no label outcom"),
        ("sum by (user) (calls_total)", "nothing here has a label user"),
        ("took_seconds > 1", "there is no took_seconds"),
        ("calls_total_bucket", "there is no calls_total_bucket"),
        ("sum by (le) (took_seconds_sum)", "nothing here has a label le"),
        ("ready and redy", "there is no redy"),
        ("1 + 1", "it asks for no metric"),
    ],
)
def test_what_is_not_there_is_one(expression: str, fault: str) -> None:
    assert faults(expression, KNOWN) == [fault]


def test_matchers_are_read_with_their_values() -> None:
    found = used('calls_total{outcome=~"a|b", model="x/}y"}[5m]')
    assert found.selectors == [Selector("calls_total", {"outcome": "a|b", "model": "x/}y"})]
