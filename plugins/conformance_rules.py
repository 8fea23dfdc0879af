"""The rules that hold for every task: what ``conformance.py`` (chats) and ``conformance_tasks.py``
(all others) share.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import msgspec

from plugins.contract import (
    Adapter,
    AdapterError,
    Discovering,
    Event,
    FailureKind,
    InferenceCall,
    ModelEntry,
    Offer,
    Price,
    Usage,
)
from plugins.tasks import TASKS

SIDE_BY_SIDE = 8
CANCELLATIONS = 12
PATIENCE_S = 30.0
_KEYS = ("made-up-key-of-one-caller", "made-up-key-of-another-caller")
_NAME_LENGTH_MAX = 256
_SECRET_LENGTH_MIN = 8  # a shorter key may stand in any text by chance

Skipped = str | None
"""What a check returns: why it does not apply to a subject, or None where the rule holds."""


class NotConforming(AssertionError):
    """The adapter breaks a rule of the contract."""


@dataclass(frozen=True, kw_only=True)
class Checked(ABC):
    """What every subject of the checks has.

    ``adapter`` is started. ``refused`` is a call that fails, where there is one; ``must_refuse`` is
    false where it is not certain that it does. ``models`` are those of the toolbox.
    ``keys_seen()`` has, for each request that the provider got, the text of its headers.
    ``is_providers`` tells tasks of a provider that is played in the same event loop from the
    adapter's own. A call may take ``patience_s``.
    """

    adapter: Adapter
    refused: InferenceCall | None = None
    must_refuse: bool = True
    models: tuple[ModelEntry, ...] = ()
    keys_seen: Callable[[], Sequence[str]] | None = None
    is_providers: Callable[[asyncio.Task[Any]], bool] = lambda _task: False
    patience_s: float = PATIENCE_S

    @abstractmethod
    def fresh(self) -> InferenceCall:
        """A call that succeeds."""

    @abstractmethod
    async def attempt(self, call: InferenceCall) -> object:
        """Drive a call to its end, holding its events against the contract."""


def expect(holds: bool, rule: str) -> None:
    """Raise NotConforming with the rule where it does not hold."""
    if not holds:
        raise NotConforming(rule)


def counted(usage: Usage) -> list[int]:
    """All quantities of a usage."""
    values = msgspec.structs.astuple(usage)
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]


async def close(events: AsyncIterator[Event]) -> None:
    """Leave a call."""
    expect(hasattr(events, "aclose"), "infer is an async generator")
    await cast("AsyncGenerator[Event, None]", events).aclose()


async def settled(subject: Checked, before: set[asyncio.Task[Any]]) -> None:
    """Tasks that began since ``before`` are gone soon: an adapter keeps none running."""
    for _ in range(100):
        left = {t for t in asyncio.all_tasks() - before if not subject.is_providers(t)}
        if not left:
            return
        await asyncio.sleep(0.01)
    raise NotConforming(f"tasks are still running after the call: {left!r}")


async def offers_are_cheap_and_steady(subject: Checked) -> None:
    """`offers` needs no I/O and says the same twice; a model is offered once, for known tasks."""
    first, second = subject.adapter.offers(), subject.adapter.offers()
    expect(first == second, "offers says the same when nothing changed")
    models = [offer.model for offer in first]
    expect(len(models) == len(set(models)), "a model is offered once")
    expect(all(offer.tasks for offer in first), "an offer has a task")
    unknown = sorted({task for offer in first for task in offer.tasks} - set(TASKS))
    expect(not unknown, f"tasks have the Hub's names, found {unknown}")


async def offers_keep_what_is_configured(subject: Checked) -> Skipped:
    """Price, names, limits and parameters of a configured model are offered as they are."""
    if not subject.models:
        return "no configured models are given"
    offers = {offer.model: offer for offer in subject.adapter.offers()}
    for entry in subject.models:
        offer = offers.get(entry.id)
        if offer is None:
            raise NotConforming(f"the configured model {entry.id!r} is offered")
        _expect_as_entry(offer, entry)
    return None


async def listed_models_are_well_formed(subject: Checked) -> Skipped:
    """`discover` gives each model once, with names, prices and limits that can be; `offer_of`
    makes an offer of it."""
    if not isinstance(subject.adapter, Discovering):
        return "the adapter does not ask its provider for models"
    try:
        async with asyncio.timeout(subject.patience_s):
            entries = await subject.adapter.discover(subject.fresh().api_key)
    except AdapterError as error:
        return f"the provider gave no list: {error.kind}: {error.message}"
    ids = [entry.id for entry in entries]
    expect(len(ids) == len(set(ids)), "a model is listed once")
    for entry in entries:
        for name in (entry.id, entry.upstream_id):
            expect(0 < len(name) <= _NAME_LENGTH_MAX, "a listed model has names, none too long")
            expect(name.isprintable(), f"a listed model's name can be printed, found {name!r}")
        expect(bool(entry.tasks) and set(entry.tasks) <= set(TASKS), f"{entry.id}: known tasks")
        for limit in (entry.context_length, entry.output_tokens_max):
            expect(limit is None or limit > 0, f"{entry.id}: limits are above zero, or not known")
        expect(_is_price(entry.price), f"{entry.id}: a price is whole numbers, none below zero")
        _expect_as_entry(subject.adapter.offer_of(entry), entry)
    return None


def _is_price(price: Price) -> bool:
    rates = [rate for rate in msgspec.structs.astuple(price) if rate is not None]
    return all(isinstance(rate, int) and rate >= 0 for rate in rates)


def _expect_as_entry(offer: Offer, entry: ModelEntry) -> None:
    expect(
        (offer.model, offer.upstream_id) == (entry.id, entry.upstream_id),
        f"{entry.id}: an offer has its model's names",
    )
    expect(offer.price == entry.price, f"{entry.id}: an offer has its model's price")
    expect(not offer.labels, f"{entry.id}: labels are put on by the host")
    for name in ("context_length", "output_tokens_max", "supported_params"):
        told = getattr(entry, name)
        expect(
            told is None or getattr(offer, name) == told,
            f"{entry.id}: an offer keeps its model's {name}",
        )


async def each_call_brings_its_own_key(subject: Checked) -> Skipped:
    """A call's key goes out with that call only; none is kept for the next."""
    if subject.keys_seen is None:
        return "nobody tells which keys the provider saw"
    before = len(subject.keys_seen())
    sent = (*_KEYS, _KEYS[0])
    for key in sent:
        call = msgspec.structs.replace(subject.fresh(), api_key=key)
        try:
            await subject.attempt(call)
        except AdapterError as error:  # the provider may know neither key
            expect_no_secret(error, key)
    seen = [
        tuple(key for key in _KEYS if key in headers) for headers in subject.keys_seen()[before:]
    ]
    found = [keys for keys, _ in groupby(keys for keys in seen if keys)]
    expect(found == [(key,) for key in sent], "each call sends its own key, and no other")
    return None


async def survive_cancelling(subject: Checked, make: Callable[[], Awaitable[object]]) -> None:
    """``make`` starts a call; it is cancelled after ever more turns of the loop."""
    before = asyncio.all_tasks()
    for turns in range(CANCELLATIONS):
        task = asyncio.ensure_future(make())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        ended = (await asyncio.gather(task, return_exceptions=True))[0]
        expect(
            isinstance(ended, asyncio.CancelledError) or not isinstance(ended, BaseException),
            f"cancellation is passed on, found {ended!r}",
        )
    await settled(subject, before)
    await make()


async def failures_are_adapter_errors(subject: Checked) -> Skipped:
    """Whatever the provider does, AdapterError is what comes out, fit to be shown and logged,
    without the key."""
    call = subject.refused
    if call is None:
        return "no call that fails is given"
    try:
        await subject.attempt(call)
    except AdapterError as error:
        expect(isinstance(error.kind, FailureKind), "a failure has a kind")
        expect(0 < len(error.message) <= 512, "a failure has a message of at most 512 characters")
        expect(len(error.detail) <= 512, "a failure's detail is at most 512 characters")
        expect(error.retry_after_s is None or error.retry_after_s >= 0, "no negative waits")
        expect(error.usage is None or min(counted(error.usage)) >= 0, "no negative usage")
        if call.api_key is not None:
            expect_no_secret(error, call.api_key)
        return None
    except NotConforming:
        raise
    except Exception as error:
        raise NotConforming(f"an adapter raises AdapterError only, found {error!r}") from error
    if subject.must_refuse:
        raise NotConforming("the refused call was answered")
    return "the provider answered the call that was to fail"


def expect_no_secret(error: AdapterError, secret: str) -> None:
    """The key is nowhere in a failure, nor in what caused it: both go to the log."""
    if len(secret) < _SECRET_LENGTH_MIN:
        return
    at: BaseException | None = error
    told = [error.message, error.detail, error.param or ""]
    while at is not None:
        told.append(repr(at))
        at = at.__cause__ or at.__context__
    expect(not any(secret in text for text in told), "a failure does not tell the key")
