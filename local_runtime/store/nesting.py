"""How deeply a JSON text is nested, found out before a recursive parser gets to see it."""

import re

_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def depth_of(data: bytes) -> int:
    """The most brackets and braces that are open at once; those inside texts do not count."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_TEXT.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
