"""Usage as CSV (RFC 4180, UTF-8), safe to open in a spreadsheet.

The text of a cell may come from a caller (a model's name, a key's name): what a spreadsheet would
take for a formula gets an apostrophe in front of it.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from app.metering.calls import UsageCall
from app.metering.questions import Grouping
from app.metering.usage import UsageSummary

_NAMED = frozenset({"key", "user", "org", "group"})
_GROUPED = ("group", "label", "groups", "labels")
_SUMS = tuple(name for name in UsageSummary.__struct_fields__ if name not in _GROUPED)
_CALL = UsageCall.__struct_fields__
# Also the full-width forms, and behind what a spreadsheet does not show.
_FORMULA = re.compile("[\\s\x00-\x1f\u200b\ufeff]*[-=+@\uff1d\uff0b\uff0d\uff20]|[\x00\t\r\n]")
_NANO_PER_USD = 10**9


def summary_csv(by: Sequence[Grouping], lines: Iterable[UsageSummary]) -> Iterator[str]:
    """The header and a row for each group: its values, names beside ids, and its sums."""
    header: list[str] = []
    for grouping in by:
        header += [grouping, f"{grouping}_name"] if grouping in _NAMED else [grouping]
    yield _row([*header, *_SUMS, "cost_usd"])
    for line in lines:
        cells: list[object] = []
        for grouping in by:
            cells.append(line.groups[grouping])
            if grouping in _NAMED:
                cells.append(line.labels[grouping])
        yield _row([*cells, *(getattr(line, name) for name in _SUMS), usd(line.cost_nano_usd)])


def calls_header() -> str:
    """The header of ``calls_csv``: every field of a call, the time of day, and its cost in USD."""
    return _row(["at", *_CALL, "cost_usd"])


def calls_csv(calls: Iterable[UsageCall]) -> Iterator[str]:
    """A row for each call."""
    for call in calls:
        at = datetime.fromtimestamp(call.at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        cells = msgspec.to_builtins(call)
        yield _row(
            [
                f"{at}.{call.at_ms % 1000:03d}Z",
                *(cells[name] for name in _CALL),
                usd(call.cost_nano_usd),
            ]
        )


def usd(nano_usd: int) -> str:
    """Exact dollars, nine places."""
    return f"{nano_usd // _NANO_PER_USD}.{nano_usd % _NANO_PER_USD:09d}"


def _row(cells: Iterable[object]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow([_cell(cell) for cell in cells])
    return text.getvalue()


def _cell(cell: object) -> object:
    if isinstance(cell, bool):
        return int(cell)
    if isinstance(cell, str) and _FORMULA.match(cell):
        return f"'{cell}"
    return cell
