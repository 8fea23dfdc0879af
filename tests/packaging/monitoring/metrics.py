"""What /metrics can give, as a scrape tells it and as the collectors themselves do."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

MONITORING = Path(__file__).parents[3] / "packaging" / "monitoring"
ROW = re.compile(r"^\| `[a-z0-9_]+` \|.*\|$", re.MULTILINE)


class Described(NamedTuple):
    """A metric: its type, and the labels that it can have."""

    kind: str
    labels: frozenset[str]


def told() -> dict[str, Described]:
    """What the table in README.md says, by name."""
    text = (MONITORING / "README.md").read_text(encoding="utf-8")
    found = {}
    for row in ROW.findall(text):
        name, kind, labels, says, _todo = (cell.strip() for cell in row.strip("|").split("|"))
        name = name.strip("`")
        assert name not in found, f"{name} has two rows"
        assert len(says) > 10
        found[name] = Described(kind, frozenset(re.findall(r"`(\w+)`", labels)))
    return found


def scraped(text: str) -> dict[str, Described]:
    """What a scrape says; labels only of those that were counted."""
    return _described(text_string_to_metric_families(text))


def collected(families: Iterable[Metric]) -> dict[str, Described]:
    """What collectors say, all their labels with it."""
    found = _described(families)
    for family in families:
        labels = frozenset(getattr(family, "_labelnames", ()))
        name = _name(family)
        found[name] = Described(found[name].kind, found[name].labels | labels)
    return found


def _described(families: Iterable[Metric]) -> dict[str, Described]:
    return {
        _name(family): Described(
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in families
    }


def _name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name
