"""Which metrics and labels a PromQL expression uses: enough of its grammar for that, no more."""

import re
from typing import NamedTuple

from tests.packaging.monitoring.metrics import Described

ALWAYS = {"instance", "job"}
_STRING = r'"(?:[^"\\]|\\.)*"'
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\S+")
_SELECTOR = re.compile(
    rf"(?<![\w$.])([a-zA-Z_:][\w:]*)(?![\w:]*\s*\()\s*(\{{(?:[^}}\"]|{_STRING})*\}})?"
)
_MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({_STRING})")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_OF_HISTOGRAMS = ("_bucket", "_sum", "_count")


class Selector(NamedTuple):
    """A metric as an expression asks for it: which labels it looks at, and for which values."""

    metric: str
    matchers: dict[str, str]


class Used(NamedTuple):
    """All that an expression uses. ``kept`` are its result's labels, where it says which."""

    selectors: list[Selector]
    grouped: set[str]
    kept: set[str] | None


def used(expression: str) -> Used:
    """Read an expression."""
    groups = _GROUPING.findall(expression)
    grouped = {
        label.strip() for _, labels in groups for label in labels.split(",") if label.strip()
    }
    kept = next(
        ({label.strip() for label in labels.split(",")} for word, labels in groups if word == "by"),
        None,
    )
    rest = _RANGE.sub(" ", _GROUPING.sub(" ", expression))
    selectors = [
        Selector(name, {label: value[1:-1] for label, _, value in _MATCHER.findall(braces)})
        for name, braces in _SELECTOR.findall(rest)
        if name not in _WORDS
    ]
    return Used(selectors, grouped, kept)


def labels_of(metric: str, known: dict[str, Described]) -> set[str] | None:
    """The labels of a series of that name; None where there is no such series."""
    if metric in known:
        if known[metric].kind == "histogram":
            return None  # only its parts are series
        return {*known[metric].labels, *ALWAYS}
    for ending in _OF_HISTOGRAMS:
        whole = known.get(metric.removesuffix(ending))
        if metric.endswith(ending) and whole is not None and whole.kind == "histogram":
            return {*whole.labels, *ALWAYS, *({"le"} if ending == "_bucket" else set())}
    return set(ALWAYS) if metric == "up" else None


def faults(expression: str, known: dict[str, Described]) -> list[str]:
    """What it uses that is not there, in words."""
    found, all_labels = used(expression), set()
    wrong = [] if found.selectors else ["it asks for no metric"]
    for metric, matchers in found.selectors:
        labels = labels_of(metric, known)
        if labels is None:
            wrong.append(f"there is no {metric}")
            continue
        all_labels |= labels
        wrong += [f"{metric} has no label {label}" for label in matchers if label not in labels]
    wrong += [f"nothing here has a label {label}" for label in found.grouped - all_labels]
    return wrong
