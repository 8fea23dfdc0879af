"""Prompts of the local bench: different ones for every stream and round, the same on every machine.

No two rounds share a beginning, or what one round left in a cache would answer the next. Of one
round's prompts some ask for free text, some for a list, some for a text to be said again.
"""

import random
from typing import Any

_THINGS = (
    "lighthouse", "harbour", "orchard", "railway", "glacier", "market", "violin", "compiler",
    "kitchen", "volcano", "library", "river", "bakery", "telescope", "garden", "engine", "bridge",
    "museum", "forest", "theatre",
)  # fmt: skip
_PEOPLE = (
    "keeper", "gardener", "pilot", "teacher", "baker", "captain", "programmer", "doctor",
    "painter", "farmer", "judge", "composer", "guard", "student", "smith", "clerk",
)  # fmt: skip
_DEEDS = (
    "repaired", "described", "remembered", "painted", "counted", "opened", "measured", "forgot",
    "visited", "sold", "defended", "rebuilt", "watched", "inherited", "compared", "searched",
)  # fmt: skip
_TIMES = (
    "every morning", "in the long winter", "before the storm", "after the war", "on a Sunday",
    "for thirty years", "without a word", "against all advice", "with great care", "by night",
)  # fmt: skip


def sentences(seed: str, words: int) -> str:
    """Plain sentences of about so many words; a word is 1.1 to 1.3 tokens of common models."""
    draw = random.Random(seed)
    parts: list[str] = []
    count = 0
    while count < words:
        sentence = (
            f"The {draw.choice(_PEOPLE)} of the {draw.choice(_THINGS)} {draw.choice(_DEEDS)} the"
            f" {draw.choice(_THINGS)} number {draw.randint(2, 999)} {draw.choice(_TIMES)}."
        )
        parts.append(sentence)
        count += len(sentence.split())
    return " ".join(parts)


def short(seed: str, number: int) -> str:
    """A prompt of 20 to 120 tokens."""
    draw = random.Random(f"{seed}/{number}")
    thing, person = draw.choice(_THINGS), draw.choice(_PEOPLE)
    tag = draw.randint(1000, 9999)
    return (
        f"{tag}: write a long story about the {person} of an old {thing} and what changed there.",
        f"In {tag} words, explain to a {person} how a {thing} works, step by step.",
        f"List {tag} things that a {person} should know about a {thing}, with a reason for each.",
        f"Say this again in other words: {sentences(f'{seed}/{number}', 60)}",
    )[number % 4]


def chat(user: str, *, system: str = "", max_tokens: int = 128) -> dict[str, Any]:
    """The request: every parameter of sampling is given, so that no server's defaults differ, and
    the answer always has ``max_tokens`` tokens. There is no seed: whoever promises the same text
    for one, as Turnpike does, cannot do all that makes it fast.
    """
    messages = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [*messages, {"role": "user", "content": user}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
    }
