"""Offers that are priced by the time they keep hardware busy: how long an attempt may take, and how
long it did."""

import asyncio

from plugins.contract import InferenceCall, Usage
from plugins.http.client import Exchange
from plugins.openai_compatible import wire


def seconds_max(call: InferenceCall) -> float:
    """How long an attempt may take: where compute is billed, no longer than the hold pays for."""
    if call.compute_ns_max is None:
        return call.deadline_s
    return min(call.deadline_s, call.compute_ns_max / 1e9)


def with_compute(
    usage: Usage, call: InferenceCall, exchange: Exchange | None, began: float
) -> Usage:
    """The usage, with the compute time where that is what the offer is priced by; ``began`` in the
    loop's time."""
    if call.compute_ns_max is None:
        return usage
    wall_ns = round((asyncio.get_running_loop().time() - began) * 1e9)
    told = None
    if exchange is not None:
        told = wire.compute_seconds(
            exchange.header("x-compute-time"), exchange.header("x-total-time")
        )
    return wire.with_compute(usage, told, wall_ns)
