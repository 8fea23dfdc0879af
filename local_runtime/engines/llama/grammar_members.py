"""The members of objects and the items of arrays as GBNF: what may follow what, how many of it."""

from collections.abc import Callable
from dataclasses import dataclass

Name = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Member:
    """``rule`` is its whole text; ``required``: it cannot be left out."""

    rule: str
    required: bool


def chain(members: list[Member], least: int, most: int | None, name: Name) -> str | None:
    """Members in their order, with commas, ``least`` to ``most`` of them; None: impossible.

    ``name`` gives a rule body a name.
    """
    most = len(members) if most is None else min(most, len(members))
    required = sum(member.required for member in members)
    # Beyond the smallest count it does not matter how many there were, only whether there were any.
    counted = least > required or most < len(members)
    known: dict[tuple[int, int], str | None] = {}

    def follow(at: int, written: int) -> str | None:
        key = (at, written if counted else min(written, 1))
        if key not in known:
            known[key] = rest(at, written)
        return known[key]

    def rest(at: int, written: int) -> str | None:
        if at == len(members):
            return '""' if not counted or least <= written <= most else None
        member = members[at]
        options = []
        if not counted or written < most:
            after = follow(at + 1, written + 1)
            if after is not None:
                comma = '"," ws ' if written else ""
                options.append(f"{comma}{member.rule}" + ("" if after == '""' else f" {after}"))
        if not member.required:
            without = follow(at + 1, written)
            if without is not None:
                options.append(without)
        if not options:
            return None
        return options[0] if options == ['""'] else name(" | ".join(options))

    # From the end on, so that long lists do not recurse deep.
    for at in range(len(members), -1, -1):
        for written in range(min(at, most) + 1 if counted else min(at, 1) + 1):
            follow(at, written)
    return follow(0, 0)


def row(fixed: list[str], item: str | None, least: int, most: int | None, name: Name) -> str | None:
    """Items with commas: ``fixed`` first, then any number of ``item``; None: impossible."""
    count = len(fixed)
    if item is None:
        most = count if most is None else min(most, count)
    if most is not None and (most < least or most == 0):
        return '""' if least == 0 else None
    if most is None or most > count:
        upper = "" if most is None else str(most - count)
        tail = f'("," ws {item}){{{max(0, least - count)},{upper}}}'
        if not count:
            upper = "" if most is None else str(most - 1)
            more = f'{item} ("," ws {item}){{{max(0, least - 1)},{upper}}}'
            return more if least else f"({more})?"
    else:
        tail = '""'
    for at in reversed(range(count if most is None else min(count, most))):
        comma = '"," ws ' if at else ""
        body = f"{comma}{fixed[at]}" + ("" if tail == '""' else f" {tail}")
        tail = name(body if at < least else f"({body})?")
    return tail
