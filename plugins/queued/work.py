"""Work at a provider that takes it in now and has it done later, and what its wire has to say.

A provider's ``wire.py`` implements ``Wire``; ``adapter.py`` does the rest: it submits, asks again
until the work has ended, cancels what is abandoned, and reads results where they lie.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from plugins.contract import AdapterError, FailureKind, InferenceCall, Usage
from plugins.http.client import Exchange, HttpRequest
from plugins.tasks import Output

_PLACE_LENGTH_MAX = 2048
_PLACE = re.compile(r"https?://[a-z0-9.:-]+/[!-~]*\Z", re.IGNORECASE)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z")


@dataclass(frozen=True)
class Reply:
    """One reply of the provider, read to its end."""

    exchange: Exchange
    body: bytes

    @property
    def status(self) -> int:
        return self.exchange.status

    @property
    def is_good(self) -> bool:
        return 200 <= self.exchange.status < 300

    def header(self, name: str) -> str | None:
        """One header, by lower-case name."""
        return self.exchange.header(name)


@dataclass(frozen=True)
class Pending:
    """Not done. ``running``: hardware is at work on it, so it costs where compute is billed."""

    running: bool = False


@dataclass(frozen=True)
class Answer:
    """Done. ``text_url`` is where a transcript's text lies, where the answer has no text in it."""

    output: Output
    usage: Usage
    text_url: str = ""


@dataclass(frozen=True)
class Further:
    """Done, but the answer has to be asked for: ``read`` takes a good reply to ``request``.

    ``is_outcome`` tells a refusal that is how the work ended from trouble on the way to it.
    """

    request: HttpRequest
    read: Callable[[Reply], Answer | AdapterError]
    is_outcome: Callable[[Reply], bool]


Progress = Pending | Answer | Further | AdapterError
"""What a reply says of the work; an ``AdapterError`` says that it has ended badly, and why."""


@dataclass(frozen=True)
class Ticket:
    """Work that the provider took in.

    ``ask`` is sent, again and again, to learn how it stands; ``read`` takes a good reply to it and
    raises AdapterError for one that cannot be read. ``cancel`` ends the work, where that can be
    done. ``progress`` is what the provider said when it took the work in.
    """

    id: str
    ask: HttpRequest
    read: Callable[[Reply], Progress]
    cancel: HttpRequest | None = None
    progress: Progress = field(default_factory=Pending)


class Wire(Protocol):
    """One provider's format.

    ``honours`` gives the request parameters that are sent on, for each task that is served.
    """

    title: str
    honours: Mapping[str, frozenset[str]]

    def submission(self, call: InferenceCall) -> HttpRequest:
        """The request that hands the work in; media of ``call`` have their bytes. Raises
        AdapterError (BAD_REQUEST) for a value of a parameter that cannot be honoured.
        """
        ...

    def accepted(self, reply: Reply, call: InferenceCall) -> Ticket:
        """Read a good reply to the submission. Raises AdapterError."""
        ...

    def refusal(self, reply: Reply, key: str | None) -> AdapterError:
        """What a reply that is not good stands for."""
        ...


def checked_id(found: object) -> str:
    """A provider's id of the work, which becomes part of a path. Raises AdapterError."""
    if isinstance(found, str) and _ID.match(found):
        return found
    raise AdapterError(
        FailureKind.PROTOCOL,
        "the provider's answer has no id of the work",
        detail=f"id {str(found)[:80]!r}",
    )


def place(named: object, usual: str) -> str:
    """Where to ask: the URL that the provider named, or else the ``usual`` path.

    Whether it is one of the provider's own hosts is the client's to hold. Raises AdapterError for
    what is no URL.
    """
    if named is None:
        return usual
    if not isinstance(named, str) or len(named) > _PLACE_LENGTH_MAX or not _PLACE.match(named):
        raise unreadable(f"a place to ask that is no URL: {str(named)[:80]!r}")
    return named


def unreadable(why: object) -> AdapterError:
    """The reply is not what the provider's format says."""
    return AdapterError(
        FailureKind.PROTOCOL, "the provider's answer cannot be read", detail=str(why)[:300]
    )
