"""Which minutes of a dedicated endpoint are billed (I9), from what was written down. Pure.

A replica is billed while it runs, initialising or serving: from the moment it started or resumed
until it stopped or was paused. A minute in which it ran at all is billed once, however often it
paused and resumed within it. A run whose end nobody saw (a crash of the replica, of its machine or
of the appliance) is billed to its last heartbeat that is on disk, and never to "now".

The price of a minute is the hardware's price, rounded up to a whole nano-USD once per minute.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from fractions import Fraction

import msgspec

from app.ledger.entries import EndpointMinute

MINUTE_MS = 60_000
_SECONDS = {"second": 1, "minute": 60, "hour": 3_600}


class Sign(StrEnum):
    """What a replica was seen to do."""

    STARTED = "started"
    HEARTBEAT = "heartbeat"
    PAUSED = "paused"
    RESUMED = "resumed"
    STOPPED = "stopped"
    CRASHED = "crashed"


class Sighting(msgspec.Struct, frozen=True):
    """One durable record of a replica, in ledger time."""

    at_ms: int
    sign: Sign


def runs(sightings: Iterable[Sighting]) -> list[tuple[int, int]]:
    """From when until before when a replica ran, in milliseconds, in order.

    A start while it seems to run means that the run before crashed. What does not fit otherwise (a
    second stop, a heartbeat of a replica that does not run, a resumption of one that does) says
    nothing new, so records that were written twice change nothing. Raises ValueError where the
    records are not in the order of time.
    """
    found: list[tuple[int, int]] = []
    began_ms: int | None = None
    alive_ms = before_ms = 0  # last proof that it ran; the record before this one
    for sighting in sightings:
        at_ms, sign = sighting.at_ms, sighting.sign
        if at_ms < before_ms:
            raise ValueError(f"a sighting at {at_ms} comes after one at {before_ms}")
        before_ms = at_ms
        if began_ms is None:
            if sign in (Sign.STARTED, Sign.RESUMED):
                began_ms = alive_ms = at_ms
        elif sign is Sign.HEARTBEAT:
            alive_ms = at_ms
        elif sign in (Sign.PAUSED, Sign.STOPPED):
            found.append((began_ms, at_ms))
            began_ms = None
        elif sign is not Sign.RESUMED:  # it crashed, seen or not
            found.append((began_ms, alive_ms))
            began_ms = at_ms if sign is Sign.STARTED else None
            alive_ms = at_ms
    if began_ms is not None:
        found.append((began_ms, alive_ms))
    return [(start_ms, end_ms) for start_ms, end_ms in found if start_ms < end_ms]


def minutes(sightings: Iterable[Sighting]) -> list[int]:
    """The minutes, counted from 1970, in which the replica ran; each once, in order."""
    found: list[int] = []
    for start_ms, end_ms in runs(sightings):
        first, last = start_ms // MINUTE_MS, (end_ms - 1) // MINUTE_MS
        if found:
            first = max(first, found[-1] + 1)
        found += range(first, last + 1)
    return found


def nano_usd_per_minute(nano_usd: int | Fraction, per: str) -> int:
    """What a minute costs at a price per ``second``, ``minute`` or ``hour``.

    ``0 <= result - exact < 1``. Raises ValueError for a negative price or another unit.
    """
    seconds = _SECONDS.get(per)
    if seconds is None or nano_usd < 0:
        raise ValueError(f"no price of hardware: {nano_usd} nano-USD per {per}")
    exact = Fraction(nano_usd) * Fraction(60, seconds)
    return -(-exact.numerator // exact.denominator)


def to_bill(
    endpoint_id: str, replicas: Sequence[Sequence[Sighting]], amount_nano_usd: int
) -> list[EndpointMinute]:
    """What the ledger is told of an endpoint: it bills those minutes that it has not billed yet.

    ``replicas`` are their sightings, by number from 0; ``amount_nano_usd`` is per minute.
    """
    return [
        EndpointMinute(
            endpoint_id=endpoint_id,
            replica=replica,
            minute=minute,
            amount_nano_usd=amount_nano_usd,
        )
        for replica, sightings in enumerate(replicas)
        for minute in minutes(sightings)
    ]
