"""Reads what a billing API answers: request ids and nano-USD, exactly, whatever else is in it."""

import json
from collections.abc import Container
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any

from app.ledger.accounts import AMOUNT_NANO_USD_MAX


class UnreadableAnswer(Exception):
    """The answer is not what the protocol says; the message is for the log."""


@dataclass(slots=True)
class Costs:
    """What an answer says about the ids that were asked.

    ``by_id`` has the good figures, nano-USD. ``conflicting`` are ids with a second, other figure;
    ``refused`` are those whose only figures cannot be a cost.
    """

    by_id: dict[str, int] = field(default_factory=dict)
    conflicting: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


def read_costs(body: bytes, asked: Container[str]) -> Costs:
    """The costs in an answer. ``"requests": null`` means later: there are none yet.

    Ids that were not asked are passed over. Raises UnreadableAnswer.
    """
    costs = Costs()
    for entry in _entries(body):
        if not isinstance(entry, dict):
            continue
        request_id = entry.get("requestId")
        if not isinstance(request_id, str) or request_id not in asked:
            continue
        cost = cost_of(entry.get("costNanoUsd"))
        if cost is None:
            costs.refused.add(request_id)
        elif costs.by_id.setdefault(request_id, cost) != cost:
            costs.conflicting.add(request_id)
    costs.refused -= costs.by_id.keys()
    return costs


def cost_of(value: object) -> int | None:
    """A figure as nano-USD, a fraction rounded up; None for what cannot be a cost."""
    if not isinstance(value, Decimal) or not 0 <= value <= AMOUNT_NANO_USD_MAX:
        return None
    return int(value.to_integral_value(rounding=ROUND_CEILING))


def _entries(body: bytes) -> list[Any]:
    """The list under ``requests``. Every number in it is a Decimal of its very text."""
    try:
        # The standard library's reader, since it can be told to keep numbers exact, and since one
        # NaN, which is no JSON, must not hide thousands of good figures.
        answer = json.loads(
            body, parse_int=_number, parse_float=_number, parse_constant=lambda _name: None
        )
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer(f"the answer is no JSON: {str(error)[:100]}") from error
    if not isinstance(answer, dict) or "requests" not in answer:
        raise UnreadableAnswer("the answer has no `requests`")
    requests = answer["requests"]
    if requests is None:
        return []
    if not isinstance(requests, list):
        raise UnreadableAnswer("`requests` is no list")
    return requests


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except ArithmeticError:  # an exponent beyond what even a Decimal has
        return None
