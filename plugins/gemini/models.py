"""What Google's models can be asked for, by the name they are called by.

Sources: Google's pages on thinking, thought signatures and OpenAI compatibility; vercel/ai,
``google-model-capabilities.ts``. A Gemini that is not known yet is like the newest.
"""

import re
from functools import cache
from typing import Literal

import msgspec

_VERSION = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?(?=-|$)")
_OLD = re.compile(r"gemini-(?:pro(?:-vision)?$|robotics-er-1|exp-)")
_NEWEST = (99, 0)


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """``thinks``: by a number of tokens (2.5), by a level (3 and later), or not at all. ``rests``:
    thinking can be turned off. ``levels`` gives its name of each effort. ``signs``: it refuses its
    own calls of tools when they come back without their signature, and takes pictures in their
    results. ``instructions``: these are apart from the conversation.
    """

    thinks: Literal["no", "budget", "level"] = "no"
    rests: bool = False
    levels: tuple[tuple[str, str], ...] = ()
    signs: bool = False
    instructions: bool = True


@cache
def abilities_of(name: str) -> Abilities:
    """The abilities of a model; ``models/`` may stand before its name."""
    name = name.lower().rpartition("/")[2]
    if not name.startswith("gemini-"):
        return Abilities(instructions=not name.startswith("gemma-"))
    found = _VERSION.match(name)
    version = (int(found[1]), int(found[2] or 0)) if found else _NEWEST
    if version < (2, 5) or _OLD.match(name):
        return Abilities()
    if version < (3, 0):
        return Abilities(thinks="budget", rests="-pro" not in name)
    pro = "-pro" in name
    return Abilities(
        thinks="level",
        signs=True,
        levels=(
            ("minimal", "LOW" if pro else "MINIMAL"),
            ("low", "LOW"),
            # The first of them knows two levels only.
            ("medium", "HIGH" if pro and version == (3, 0) else "MEDIUM"),
            *((effort, "HIGH") for effort in ("high", "xhigh", "max")),
        ),
    )
