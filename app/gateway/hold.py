"""Set the call's money aside, waiting a little where other calls in flight may give some back."""

import asyncio

from msgspec.structs import replace

from app.clock import Clock
from app.gateway.call import Call
from app.gateway.estimate import Bounds
from app.ledger.entries import Hold, HoldRequest
from app.ledger.store import InsufficientCredit, LedgerStore
from plugins.contract import Offer

WAIT_FOR_RELEASE_S_MAX = 10.0
# Beyond the longest that the call itself may take, so that only a hold without an owner expires.
EXPIRES_AFTER_S_MIN = 30 * 60


async def place(
    ledger: LedgerStore,
    clock: Clock,
    call: Call,
    bounds: Bounds,
    offers: tuple[Offer, ...],
    call_seconds_max: float,
) -> Hold:
    """Place the call's hold for any of ``offers``; durable when this returns.

    Money that other calls hold is not gone: while it would make this call possible, wait for it.
    Only then is a smaller hold taken (the answer gets a shorter limit), down to the floor. So 402
    comes exactly when the money is gone. Raises what ``LedgerStore.place_hold`` does.
    """
    request = HoldRequest(
        call_id=call.id,
        user_id=call.principal.user_id,
        key_id=call.principal.key_id,
        bill_to=call.bill_to,
        offers=tuple((offer.provider, offer.model) for offer in offers),
        amount_nano_usd=bounds.amount_nano_usd,
        floor_nano_usd=bounds.comfortable_nano_usd,
        byok=all(offer.provider in call.own_keys for offer in offers),
        idempotency=None if call.repeatable is None else call.repeatable.key,
        admitted_at_ms=call.admitted_at_ms,
        expires_at_ms=call.admitted_at_ms + int(EXPIRES_AFTER_S_MIN + call_seconds_max) * 1000,
    )
    waited_from_ns = None
    released: asyncio.Task[bool] | None = None
    try:
        while True:
            try:
                return await ledger.place_hold(request)
            except InsufficientCredit as refusal:
                now = clock.monotonic_ns()
                waited_from_ns = waited_from_ns or now
                left_s = WAIT_FOR_RELEASE_S_MAX - (now - waited_from_ns) / 1e9
                if refusal.fits_when_released and left_s > 0:
                    if released is not None:
                        await released
                    # The watch begins before the next try, so that no release falls between.
                    waiting = ledger.wait_for_release(refusal.payer_id, left_s)
                    released = asyncio.create_task(waiting)
                    await asyncio.sleep(0)
                elif request.floor_nano_usd > bounds.floor_nano_usd:
                    request = replace(request, floor_nano_usd=bounds.floor_nano_usd)
                else:
                    raise
    finally:
        if released is not None:
            released.cancel()
