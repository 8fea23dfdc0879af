"""The path of a call, in order: admit → plan → bound → hold → attempt → settle.

``serve`` runs in the request's task and decides; ``_carry`` runs in the call's own task, which no
client can cancel, and owns the money from the hold to its end.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from app.clock import Clock
from app.errors import CallError, Conflict, Internal, ShuttingDown, Unavailable
from app.gateway.attempt import (
    Deadlines,
    answer_to,
    attempt,
    is_illness,
    may_fail_over,
    work_order,
)
from app.gateway.call import Call, CallState
from app.gateway.estimate import Bounds, bounds
from app.gateway.hold import place
from app.gateway.pump import Pump
from app.gateway.settle import lost_to, settle, usage_row
from app.ledger.store import LedgerStore
from app.limits.concurrency import InFlight
from app.metering.tally import Tally
from app.routing.catalog import Catalog
from app.routing.health import Health
from app.routing.plan import RoutePlan, plan
from plugins.contract import Adapter, AdapterError, Offer

log = logging.getLogger("turnpike.gateway")
_DEFAULT_DEADLINES = Deadlines()


class Gateway:
    """Serves calls with what the other rooms provide."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        adapters: Mapping[str, Adapter],
        deadlines: Mapping[str, Deadlines],
        ledger: LedgerStore,
        billed_later: Collection[str],
        health: Health,
        clock: Clock,
        in_flight: InFlight,
        tally: Tally,
    ) -> None:
        self.in_flight = in_flight
        self.tally = tally
        self.clock = clock
        self._catalog = catalog
        self._adapters = adapters
        self._deadlines = deadlines
        self._ledger = ledger
        self._billed_later = frozenset(billed_later)
        self._health = health
        self._running: set[asyncio.Task[None]] = set()

    def serve(self, call: Call) -> Pump:
        """Admit and plan a call and start its task; the pump delivers. Raises CallError."""
        self.in_flight.enter()
        try:
            route = plan(
                call.request.model,
                call.request.given_params,
                self._catalog.snapshot_at(call.admitted_at_ms),
                self._health.live,
            )
            limits = bounds(call.request, call.body_bytes, route.offers)
            pump = Pump(call, self.clock.monotonic_ns)
            task = asyncio.get_running_loop().create_task(self._carry(pump, route, limits))
        except BaseException:
            self.in_flight.leave()
            raise
        self._running.add(task)
        task.add_done_callback(self._ended)
        return pump

    async def _carry(self, pump: Pump, route: RoutePlan, limits: Bounds) -> None:
        """The call's own task: hold → attempts → settle; ends the pump whatever happens."""
        call = pump.call
        failure: CallError | None
        try:
            seconds_max = sum(self._deadlines_of(offer).total_s for offer in route.offers)
            call.hold = await place(
                self._ledger, self.clock, call, limits, route.offers, seconds_max
            )
            call.move(CallState.HELD)
            paid_for = [each for each in route.offers if each.provider in call.hold.providers]
            call.offer = paid_for[0]
            failed, failure = await self._try_offers(pump, paid_for, limits)
            cost_nano_usd, row = await settle(
                self._ledger, self.clock, pump, failed=failed, billed_later=call.bound
            )
            self.tally.ended(row, cost_nano_usd)
        except CallError as error:
            failure = error
        except asyncio.CancelledError:  # the drain's end: boot frees what is still held
            failure = ShuttingDown()
        except Exception:
            log.exception("call %s: a fault of the gateway", call.id)
            await self._free(call)
            failure = Internal()
        pump.end(failure)

    async def _free(self, call: Call) -> None:
        """The last net within the process: a fault of ours costs the payer nothing."""
        if call.state in {CallState.HELD, CallState.DISPATCHED, CallState.STREAMING}:
            try:
                await self._ledger.void_hold(call.id, usage_row(call, self.clock))
            except Exception:
                log.exception("call %s: its hold stays until it expires", call.id)

    async def _try_offers(
        self, pump: Pump, offers: Sequence[Offer], limits: Bounds
    ) -> tuple[bool, CallError | None]:
        """Attempt the offers in order until one delivers: (failed, what the client is told)."""
        call, last = pump.call, offers[-1]
        for offer in offers:
            if pump.abandoned:  # before anything was sent: nothing to pay, nobody to tell
                return True, Unavailable("The client left.")
            call.attempts += 1
            call.offer = offer
            call.move(CallState.DISPATCHED)
            pump.begin_attempt()
            pump.stop = asyncio.Event() if offer.abort_stops_billing else None
            order = work_order(call, offer, limits, self._deadlines_of(offer), pump.stop)
            call.bound = False
            later = offer.provider in self._billed_later
            bind = partial(self._bind, call) if later else None
            try:
                whole = await attempt(self._adapters[offer.provider], order, pump, bind)
            except AdapterError as failure:
                self._note(call, failure)
                if pump.committed:
                    call.usage = failure.usage or call.usage
                else:
                    call.lost_nano_usd += lost_to(call, failure.usage, offer)
                    if call.bound:
                        call.bound = False
                        await self._ledger.release_request(call.id)
                    if offer is not last and not call.client_left and may_fail_over(failure):
                        continue
                return True, answer_to(failure, offer.model)
            except asyncio.CancelledError:  # only the drain's end cancels a call
                return True, ShuttingDown()
            else:
                self._health.succeeded((offer.provider, offer.model))
                return not whole, None
        raise AssertionError("a plan has at least one offer")

    async def _bind(self, call: Call, upstream_id: str) -> None:
        """Keep the provider's id of the attempt, durably: it will be asked for the cost by it."""
        try:
            await self._ledger.bind_request(call.id, call.offer.provider, upstream_id)
            call.bound = True
        except Conflict as error:
            log.error("call %s: its cost cannot be asked for: %s", call.id, error)

    def _deadlines_of(self, offer: Offer) -> Deadlines:
        return self._deadlines.get(offer.provider, _DEFAULT_DEADLINES)

    def _note(self, call: Call, failure: AdapterError) -> None:
        """Remember a failed attempt: circuit, metrics, log."""
        if is_illness(failure):
            key = (call.offer.provider, call.offer.model)
            self._health.failed(key, failure.retry_after_s)
        self.tally.failed_attempts[(call.offer.provider, failure.kind)] += 1
        log.warning(
            "call %s: attempt %d at %s failed: %s: %s %s",
            call.id,
            call.attempts,
            call.offer.provider,
            failure.kind,
            failure.message,
            failure.detail,
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.in_flight.leave()

    async def drain(self, timeout_s: float) -> int:
        """Refuse new calls, let the running ones end, then break off the rest; how many those were.

        A call that is broken off is still settled for what it delivered.
        """
        self.in_flight.draining = True
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        late = list(self._running)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=5.0)
        return len(late)
