"""What Claude models can be asked for, by the name they are called by.

Sources: vercel/ai (``getModelCapabilities``), Anthropic's pages on adaptive thinking, effort and
structured outputs, and its migration guides. The same names, with prefixes and suffixes, are used
by Amazon Bedrock.
"""

import re
from functools import cache

import msgspec

_NAME = re.compile(r"claude-[a-z]+-(\d{1,2})(?!\d)(?:-(\d{1,2})(?!\d))?")
_OLD_NAME = re.compile(r"claude-(?:instant|v?([1-3]))(?:[-.](\d)(?!\d))?")


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` is the major and minor one, zeros for what is no Claude. ``adaptive``: thinks as
    much as an effort says. ``budget``: thinks within a number of tokens. ``sampling``: takes
    temperature, top_p and top_k. ``structured``: holds to a JSON schema. ``xhigh``: knows that
    effort.
    """

    version: tuple[int, int] = (0, 0)
    adaptive: bool = False
    budget: bool = False
    sampling: bool = True
    structured: bool = False
    xhigh: bool = False

    @property
    def thinks(self) -> bool:
        """Whether it can be asked to think."""
        return self.adaptive or self.budget


_NEWEST = Abilities(version=(99, 0), adaptive=True, sampling=False, structured=True, xhigh=True)
# Servers that speak Anthropic's protocol with models of their own take a budget.
_UNKNOWN = Abilities(budget=True)


@cache
def abilities_of(name: str) -> Abilities:
    """The abilities of a model; a Claude model that is not known yet is like the newest."""
    if old := _OLD_NAME.search(name):
        return Abilities(budget=old.groups() == ("3", "7"))
    if "claude-" not in name:
        return _UNKNOWN
    found = _NAME.search(name)
    if found is None:
        return _NEWEST
    version = (int(found[1]), int(found[2] or 0))
    if version >= (4, 7):
        return _NEWEST
    return Abilities(
        version=version,
        adaptive=version == (4, 6),
        budget=True,
        structured=version >= (4, 1),
    )
