"""A call's attempts: which offer, with which key, after which pause, until one delivers.

At most ``attempts_max`` tries, only while nothing of an answer has reached the client, and only as
far as the retry budget goes. A key that is limited or refused is not used again; another of the
same provider may be.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from app.clock import Clock
from app.errors import CallError, Conflict, ShuttingDown, Unavailable
from app.gateway.adapters import Adapters
from app.gateway.attempt import (
    Deadlines,
    PrefixSharing,
    answer_to,
    attempt,
    is_illness,
    may_fail_over,
    work_order,
)
from app.gateway.call import Call, CallState, Try
from app.gateway.call_spans import HEDGED, begin_attempt, end_attempt
from app.gateway.estimate import Bounds
from app.gateway.hedge import hedged
from app.gateway.overdue import Overdue
from app.gateway.pump import Pump
from app.gateway.retry_budget import RetryBudget
from app.gateway.settle import lost_to
from app.identity.own_keys import OwnKeys
from app.identity.sealing import SealBroken
from app.ledger.store import LedgerStore
from app.metering.tally import Tally
from app.routing.health import Health
from app.routing.key_pools import KeyPools, ProviderKey
from plugins.contract import Adapter, AdapterError, Event, FailureKind, InferenceCall, Offer

log = logging.getLogger("turnpike.gateway")
_DEFAULT_DEADLINES = Deadlines()
_OF_THE_KEY = frozenset({FailureKind.RATE_LIMITED, FailureKind.AUTH, FailureKind.NO_CREDIT})


class TryRules(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's part in how a call's offers are tried. ``billed_later`` are the providers that
    are asked afterwards what a call cost, ``prefix_sharing`` is for hardware of one's own."""

    attempts_max: int = 3
    hedge_after_s: float | None = None
    deadlines: Mapping[str, Deadlines] = {}
    billed_later: frozenset[str] = frozenset()
    prefix_sharing: PrefixSharing = "everyone"


class Choice(NamedTuple):
    """An offer, and the key that it is tried with."""

    offer: Offer
    key: ProviderKey

    @property
    def own(self) -> bool:
        """Whether the key is the payer's own."""
        return self.key.owner_id is not None


class Tries:
    """Tries the offers of calls, with what the other rooms provide."""

    def __init__(
        self,
        *,
        rules: TryRules,
        adapters: Adapters,
        ledger: LedgerStore,
        health: Health,
        keys: KeyPools,
        own_keys: OwnKeys | None,
        clock: Clock,
        tally: Tally,
    ) -> None:
        self.rules = rules
        self._adapters = adapters
        self._ledger = ledger
        self._health = health
        self._keys = keys
        self._own_keys = own_keys
        self._clock = clock
        self._tally = tally
        self._budget = RetryBudget(clock)
        self._overdue = Overdue()

    def deadlines_of(self, offer: Offer) -> Deadlines:
        """How long an attempt at the offer may take."""
        return self.rules.deadlines.get(offer.provider, _DEFAULT_DEADLINES)

    def window(self, offers: Sequence[Offer]) -> Iterable[tuple[Offer, ...]]:
        """The offers in lots of what one call may try."""
        for start in range(0, len(offers), self.rules.attempts_max):
            yield tuple(offers[start : start + self.rules.attempts_max])

    async def run(
        self, pump: Pump, offers: Sequence[Offer], limits: Bounds
    ) -> tuple[bool, CallError | None]:
        """Attempt the offers in order until one delivers: (failed, what the client is told)."""
        call, queue, last = pump.call, deque(offers), offers[0]
        skipped: deque[Offer] = deque()
        failure: AdapterError | None = None
        waits: list[float] = []  # of those that were limited: the client may come for the first
        self._budget.started()
        while call.attempts < self.rules.attempts_max:
            offer = self._next(queue, skipped)
            if offer is None:
                break
            if pump.abandoned:  # before anything was sent: nothing to pay, nobody to tell
                return True, Unavailable("The client left.")
            key = self._key(call, offer)
            if key is None:
                if offer.provider in call.own_keys:
                    failure = AdapterError(FailureKind.AUTH, "the key cannot be opened")
                    last, call.byok = offer, True
                continue
            if call.attempts and not self._budget.take():
                log.warning("call %s: no further attempt, the retry budget is used", call.id)
                break
            chosen, last = Choice(offer, key), offer
            try:
                return not await self._try_or_retry(pump, chosen, queue, limits), None
            except AdapterError as error:
                failure, last = error, call.offer
                if failure.kind is FailureKind.RATE_LIMITED and failure.retry_after_s is not None:
                    waits.append(failure.retry_after_s)
                    failure.retry_after_s = min(waits)
                if not await self._goes_on(pump, failure):
                    break
                if failure.kind in _OF_THE_KEY and self._has_another_key(call):
                    queue.appendleft(last)
            except asyncio.CancelledError:  # only the drain's end cancels a call
                return True, ShuttingDown()
        failure = failure or AdapterError(FailureKind.RATE_LIMITED, "every key rests")
        return True, answer_to(failure, last, own_key=call.byok)

    def _next(self, queue: deque[Offer], skipped: deque[Offer]) -> Offer | None:
        """The next offer whose circuit lets a call through; when there is none, any that is left:
        an attempt that will probably fail beats none."""
        while queue:
            offer = queue.popleft()
            if self._health.admit((offer.provider, offer.model)):
                return offer
            skipped.append(offer)
        return skipped.popleft() if skipped else None

    def _key(self, call: Call, offer: Offer) -> ProviderKey | None:
        """The payer's own key for the offer's provider, or one of the operator's that is ready."""
        own = call.own_keys.get(offer.provider)
        if own is None or self._own_keys is None:
            return self._keys.pick(offer.provider)
        try:
            secret = self._own_keys.open(own)
        except SealBroken as error:
            log.error("the provider key %s of %s: %s", own.id, own.owner_id, error)
            return None
        return ProviderKey(
            provider=offer.provider, name="own", secret=secret, owner_id=own.owner_id
        )

    async def _try_or_retry(
        self, pump: Pump, chosen: Choice, queue: deque[Offer], limits: Bounds
    ) -> bool:
        """One attempt; where it is not the first, after a pause and within the retry budget."""
        retry = pump.call.attempts
        if not retry:
            return await self._try(pump, chosen, queue, limits)
        try:
            await asyncio.sleep(self._budget.pause_s(retry))
            return await self._try(pump, chosen, queue, limits)
        finally:
            self._budget.ended()

    def _has_another_key(self, call: Call) -> bool:
        """Whether the offer tried last can be tried with another of the operator's keys."""
        if call.byok:
            return False
        other = self._keys.pick(call.offer.provider)
        return other is not None and other.secret != call.key.secret

    async def _try(self, pump: Pump, chosen: Choice, queue: deque[Offer], limits: Bounds) -> bool:
        """One attempt, with a second beside it where that is asked for. Raises AdapterError, once
        all that a failure means for the house has been noted."""
        call = pump.call
        pump.begin_attempt()
        pump.stop = None
        self._choose(call, chosen)
        began_ns = self._clock.monotonic_ns()
        taken: list[Adapter] = []
        try:
            order, events = self._events(pump, chosen, limits, taken)
            hedge_s = self._hedges_after(call, chosen, queue)
            if hedge_s is not None:
                events = self._hedged(pump, chosen, events, queue, hedge_s, limits, taken)
            later = chosen.offer.provider in self.rules.billed_later
            bind = partial(self._bind, call) if later else None
            whole = await attempt(events, order, pump, self._overdue, bind)
        except AdapterError as failure:
            self._failed(call, failure, began_ns)
            raise
        finally:
            for adapter in taken:
                self._adapters.release(adapter)
            if len(taken) > 1:  # the hedge's
                self._budget.ended()
        self._succeeded(call, began_ns, whole=whole)
        return whole

    def _choose(self, call: Call, chosen: Choice) -> None:
        """From here on the call is this offer's."""
        call.attempts += 1
        call.offer = chosen.offer
        call.key = chosen.key
        call.byok = chosen.own
        call.bound = False
        call.move(CallState.DISPATCHED)
        begin_attempt(call, chosen.offer, own_key=chosen.own)

    def _events(
        self, pump: Pump, chosen: Choice, limits: Bounds, taken: list[Adapter]
    ) -> tuple[InferenceCall, AsyncIterator[Event]]:
        offer = chosen.offer
        if offer.abort_stops_billing and pump.stop is None:
            pump.stop = asyncio.Event()
        stop = pump.stop if offer.abort_stops_billing else None
        order = work_order(
            pump.call,
            offer,
            chosen.key,
            limits,
            self.deadlines_of(offer),
            stop,
            self.rules.prefix_sharing,
        )
        adapter = self._adapters.take(offer.provider)
        taken.append(adapter)
        return order, adapter.infer(order)

    def _hedges_after(self, call: Call, chosen: Choice, queue: deque[Offer]) -> float | None:
        """After how many seconds another offer is asked too; None: not at all."""
        if not queue or call.attempts > 1 or chosen.own:
            return None  # a second at somebody's expense beside a key that costs nothing
        wish = call.request.provider
        hedge = wish.hedge if wish else None
        after_s = self.rules.hedge_after_s if hedge is None else hedge.after_ms / 1000
        if after_s is None or {chosen.offer.provider, queue[0].provider} & self.rules.billed_later:
            return None  # two provider ids for one call could not both be asked for their cost
        return after_s

    def _hedged(
        self,
        pump: Pump,
        chosen: Choice,
        events: AsyncIterator[Event],
        queue: deque[Offer],
        after_s: float,
        limits: Bounds,
        taken: list[Adapter],
    ) -> AsyncIterator[Event]:
        """The events of the attempt or of one at the next offer, whichever begins first."""
        call, other = pump.call, queue[0]
        dropped_by_first = call.dropped_params
        partners: list[Choice] = []

        def begin_second() -> AsyncIterator[Event]:
            key = self._key(call, other)
            if key is None or not self._budget.take():
                return _nothing()
            try:
                second = self._events(pump, Choice(other, key), limits, taken)[1]
            except AdapterError:  # its provider was taken out just now
                self._budget.ended()
                return _nothing()
            partners.append(Choice(other, key))
            begin_attempt(call, other, own_key=partners[0].own)
            return second

        def tell(is_second: bool, failure: BaseException | None) -> None:
            if not partners:
                return
            queue.popleft()
            if isinstance(failure, AdapterError) and is_second:
                self._failed(call, failure, self._clock.monotonic_ns())
            else:
                loser = chosen if is_second else partners[0]
                call.tries.append(self._tried(loser, HEDGED, after_s))
                end_attempt(call, loser.offer, HEDGED)
            if is_second:
                self._choose(call, partners[0])
            else:
                call.attempts += 1
                call.dropped_params = dropped_by_first

        return hedged(lambda: events, begin_second, after_s, tell)

    async def _goes_on(self, pump: Pump, failure: AdapterError) -> bool:
        """Settle what a failed attempt leaves behind; whether another may follow."""
        call = pump.call
        if pump.committed:
            call.usage = failure.usage or call.usage
            return False
        call.lost_nano_usd += lost_to(call, failure.usage, call.offer)
        if call.bound:
            call.bound = False
            await self._ledger.release_request(call.id)
        return may_fail_over(failure) and not call.client_left

    async def _bind(self, call: Call, upstream_id: str) -> None:
        """Keep the provider's id of the attempt, durably: it will be asked for the cost by it."""
        if call.byok:  # the provider bills the key's owner
            return
        try:
            await self._ledger.bind_request(call.id, call.offer.provider, upstream_id)
            call.bound = True
        except Conflict as error:
            log.error("call %s: its cost cannot be asked for: %s", call.id, error)

    def _succeeded(self, call: Call, began_ns: int, *, whole: bool) -> None:
        """Remember an attempt that delivered: circuit, speed, key."""
        offer, usage = call.offer, call.usage
        took_ns = self._clock.monotonic_ns() - began_ns
        at = (offer.provider, offer.model)
        self._health.succeeded(at)
        end_attempt(call, offer)
        if whole:
            tokens = usage.output_tokens + usage.reasoning_tokens
            first_ms = None
            if call.streamed and call.first_token_ns is not None:
                first_ms = (call.first_token_ns - began_ns) / 1e6
            speed = tokens * 1e9 / took_ns if tokens and took_ns > 0 else None
            self._health.measured(at, first_ms, speed, tokens)
        self._keys.accepted(call.key)
        if call.byok and self._own_keys is not None:
            self._own_keys.note_use(call.own_keys[offer.provider])
        if call.explain:
            call.tries.append(self._tried(Choice(offer, call.key), "ok", took_ns / 1e9))

    def _failed(self, call: Call, failure: AdapterError, began_ns: int) -> None:
        """Remember a failed attempt: circuit, key, metrics, log."""
        offer, key = call.offer, call.key
        at = (offer.provider, offer.model)
        if failure.kind is FailureKind.RATE_LIMITED:
            self._keys.cool(key, failure.retry_after_s)
        elif failure.kind in _OF_THE_KEY:
            self._keys.refuse(key)
        if key.owner_id is None and is_illness(failure):
            self._health.failed(at, failure.retry_after_s)
        else:
            self._health.undecided(at)
        if call.byok and self._own_keys is not None and failure.kind in _OF_THE_KEY:
            self._own_keys.note_failure(call.own_keys[offer.provider], failure.kind)
        took_s = (self._clock.monotonic_ns() - began_ns) / 1e9
        call.tries.append(self._tried(Choice(offer, key), failure.kind, took_s))
        end_attempt(call, offer, failure)
        self._tally.failed_attempts[(offer.provider, failure.kind)] += 1
        # What a provider says of a request may repeat it; the caller hears it, the log does not.
        of_request = not may_fail_over(failure)
        log.warning(
            "call %s: attempt %d at %s failed: %s%s",
            call.id,
            call.attempts,
            offer.provider,
            failure.kind,
            "" if of_request else f": {failure.message} {failure.detail}",
            extra={
                "call_id": call.id,
                "provider": offer.provider,
                "model": offer.model,
                "code": str(failure.kind),
            },
        )

    @staticmethod
    def _tried(chosen: Choice, status: str, took_s: float) -> Try:
        return Try(
            provider=chosen.offer.provider,
            model=chosen.offer.model,
            status=status,
            ms=round(took_s * 1000),
            own_key=chosen.own,
        )


async def _nothing(events: Sequence[Event] = ()) -> AsyncIterator[Event]:
    """An attempt that may not be made: a generator, as every attempt is."""
    for event in events:
        yield event
    raise AdapterError(FailureKind.RATE_LIMITED, "no further attempt may be made now")
