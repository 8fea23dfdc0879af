"""Typed ids. All are time-ordered, so that rows written together lie together on disk.

A call id is a UUID version 7 (RFC 9562, section 5.7): it is what clients see in the
``Inference-Id`` header. Other ids carry a prefix that names their kind.
"""

import os
import threading
import time
from random import Random
from typing import NewType

CallId = NewType("CallId", str)
UserId = NewType("UserId", str)
KeyId = NewType("KeyId", str)
OrgId = NewType("OrgId", str)
GroupId = NewType("GroupId", str)


class _Ticks:
    """Wall time in 1/4096 ms; never the same twice, never backwards within this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            self._last = max((time.time_ns() * 4096) // 1_000_000, self._last + 1)
            return self._last


_ticks = _Ticks()
# Ids tell rows apart and are no secrets, so a seeded generator will do: the system's own costs a
# system call, which is a fortieth of a small call.
_random = Random(os.urandom(16))  # noqa: S311


def _time_ordered() -> int:
    """128 bits: 48 of milliseconds, 12 that keep ids of one millisecond in order, 62 random."""
    tick = _ticks.next()
    milliseconds, sequence = tick >> 12, tick & 0xFFF
    random_bits = _random.getrandbits(62)
    return (milliseconds << 80) | (0x7 << 76) | (sequence << 64) | (0b10 << 62) | random_bits


def new_call_id() -> CallId:
    """A fresh UUIDv7 in its canonical 36-character form."""
    text = f"{_time_ordered():032x}"
    return CallId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def new_user_id() -> UserId:
    """``user_`` and 32 hexadecimal digits."""
    return UserId(f"user_{_time_ordered():032x}")


def new_key_id() -> KeyId:
    """``key_`` and 32 hexadecimal digits; this is the row's id, not part of the secret."""
    return KeyId(f"key_{_time_ordered():032x}")


def new_org_id() -> OrgId:
    """``org_`` and 32 hexadecimal digits."""
    return OrgId(f"org_{_time_ordered():032x}")


def new_group_id() -> GroupId:
    """``group_`` and 32 hexadecimal digits; what X-HF-Bill-To takes for a resource group."""
    return GroupId(f"group_{_time_ordered():032x}")
