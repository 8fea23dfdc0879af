"""The path of a call, in order: admit → plan → bound → hold → attempt → settle.

``serve`` runs in the request's task and decides; ``_carry`` runs in the call's own task, which no
client can cancel, and owns the money from the hold to its end.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from app.clock import Clock
from app.errors import CallError, Internal, PermissionDenied, ShuttingDown, Unavailable
from app.gateway.call import Call, CallState
from app.gateway.call_line import log_ended
from app.gateway.call_spans import end_call, step
from app.gateway.estimate import Bounds, bounds
from app.gateway.hold import place
from app.gateway.pump import Pump
from app.gateway.settle import settle, usage_row
from app.gateway.task_bounds import task_bounds
from app.gateway.tries import Tries
from app.ledger.store import LedgerStore
from app.limits.concurrency import InFlight
from app.metering.tally import Tally
from app.routing.asked import Asked, modalities_of, names_of, preferences_of, semantic_params
from app.routing.catalog import Catalog
from app.routing.health import Health
from app.routing.key_pools import KeyPools
from app.routing.plan import RoutePlan, Rules, plan
from plugins.chat import ChatRequest
from plugins.contract import Offer
from plugins.tasks import Request

log = logging.getLogger("turnpike.gateway")
LARGE_BODY_BYTES = 1_000_000


class Gateway:
    """Serves calls with what the other rooms provide. ``rules`` and ``tries`` change with the
    configuration; a call keeps what it was planned with."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        health: Health,
        keys: KeyPools,
        rules: Rules,
        tries: Tries,
        ledger: LedgerStore,
        clock: Clock,
        in_flight: InFlight,
        tally: Tally,
    ) -> None:
        self.in_flight = in_flight
        self.tally = tally
        self.clock = clock
        self.rules = rules
        self.tries = tries
        self._catalog = catalog
        self._health = health
        self._keys = keys
        self._ledger = ledger
        self._running: set[asyncio.Task[None]] = set()

    def serve(self, call: Call) -> Pump:
        """Admit and plan a call and start its task; the pump delivers. Raises CallError."""
        self.in_flight.enter()
        try:
            snapshot = self._catalog.snapshot_at(call.admitted_at_ms)
            call.route = plan(_asked(call), snapshot, self._health, self._keys, self.rules)
            pump = Pump(call, self.clock.monotonic_ns)
            task = asyncio.get_running_loop().create_task(self._carry(pump))
        except BaseException:
            self.in_flight.leave()
            raise
        if call.trace is not None:
            call.trace.begin_task()
        self._running.add(task)
        task.add_done_callback(self._ended)
        return pump

    async def _carry(self, pump: Pump) -> None:
        """The call's own task: hold → attempts → settle; ends the pump whatever happens."""
        call = pump.call
        failure: CallError | None
        row, cost_nano_usd = None, 0
        try:
            with step(call, "hold"):
                paid_for, limits = await self._hold(call, call.route)
            failed, failure = await self.tries.run(pump, paid_for, limits)
            with step(call, "settle"):
                cost_nano_usd, row = await settle(
                    self._ledger, self.clock, pump, failed=failed, billed_later=call.bound
                )
            self.tally.ended(row, cost_nano_usd)
        except CallError as error:
            failure = error
        except asyncio.CancelledError:  # the drain's end: boot frees what is still held
            failure = ShuttingDown()
        except Exception:
            log.exception("call %s: a fault of the gateway", call.id, extra={"call_id": call.id})
            await self._free(call)
            failure = Internal()
        pump.end(failure)
        # The reader hears of the end once this task has given way: the line does not delay it.
        log_ended(call, self.clock, failure, row, cost_nano_usd)
        end_call(call, failure, row, cost_nano_usd)

    async def _hold(self, call: Call, route: RoutePlan) -> tuple[Sequence[Offer], Bounds]:
        """Set money aside for as many offers as one call may try: the best of those that the payer
        pays for."""
        lots = list(self.tries.window(route.offers))
        for offers in lots:
            limits = await _bounds(call, offers)
            seconds_max = sum(self.tries.deadlines_of(offer).total_s for offer in offers)
            try:
                call.hold = await place(self._ledger, self.clock, call, limits, offers, seconds_max)
            except PermissionDenied as error:
                if error.code in _SWITCHED_OFF and offers is not lots[-1]:
                    continue
                raise
            call.move(CallState.HELD)
            allowed = set(call.hold.offers)
            paid_for = [each for each in offers if (each.provider, each.model) in allowed]
            call.offer = paid_for[0]
            if call.payer_id not in (None, call.hold.payer_id):
                await self._free(call)
                raise Unavailable("Who pays for this call has just changed. Try again.")
            return paid_for, limits
        raise AssertionError("a plan has at least one offer")

    async def _free(self, call: Call) -> None:
        """The last net within the process: a fault of ours costs the payer nothing."""
        if call.state in {CallState.HELD, CallState.DISPATCHED, CallState.STREAMING}:
            try:
                await self._ledger.void_hold(call.id, usage_row(call, self.clock))
            except Exception:
                log.exception(
                    "call %s: its hold stays until it expires", call.id, extra={"call_id": call.id}
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


_SWITCHED_OFF = frozenset({"provider_switched_off", "model_switched_off"})


async def _bounds(call: Call, offers: tuple[Offer, ...]) -> Bounds:
    """What the call can cost at any of the offers that it would be charged for."""
    if isinstance(call.request, ChatRequest):
        return bounds(call.request, call.body_bytes, offers, call.own_keys)
    paid = tuple(offer for offer in offers if offer.provider not in call.own_keys)
    if call.body_bytes > LARGE_BODY_BYTES:  # to read a recording's length takes a while
        return await asyncio.to_thread(task_bounds, call.request, call.body_bytes, paid)
    return task_bounds(call.request, call.body_bytes, paid)


def _asked(call: Call) -> Asked:
    """The call as routing sees it."""
    request = call.request
    return Asked(
        names=names_of(request),
        task=request.task,
        params=_once(request),
        modalities=modalities_of(request),
        preferences=preferences_of(request),
        confined_to=call.confined_to,
        preferred=call.preferred,
        own_keys={name: key.paid_fallback for name, key in call.own_keys.items()},
    )


def _once(request: Request) -> Callable[[], Sequence[str]]:
    """The request's parameters, looked for when first asked for."""
    found: list[Sequence[str]] = []

    def params() -> Sequence[str]:
        if not found:
            found.append(semantic_params(request))
        return found[0]

    return params
