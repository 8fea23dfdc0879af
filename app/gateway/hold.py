"""Set the call's money aside, waiting a little where other calls in flight may give some back."""

from msgspec.structs import replace

from app.billing.tiers import Tiers
from app.clock import Clock, period_of
from app.gateway.call import Call
from app.gateway.estimate import Bounds
from app.ledger.entries import Hold, HoldRequest
from app.ledger.store import InsufficientCredit, LedgerStore

WAIT_FOR_RELEASE_S_MAX = 10.0
# Beyond the longest that the call itself may take, so that only a hold without an owner expires.
EXPIRES_AFTER_S_MIN = 30 * 60


async def place(
    ledger: LedgerStore,
    tiers: Tiers,
    clock: Clock,
    call: Call,
    bounds: Bounds,
    call_seconds_max: float,
) -> Hold:
    """Place the call's hold; durable when this returns.

    Money that other calls hold is not gone: while it would make this call possible, wait for it.
    Only then is a smaller hold taken (the answer gets a shorter limit), down to the floor. So 402
    comes exactly when the money is gone. Raises InsufficientCredit.
    """
    request = HoldRequest(
        call_id=call.id,
        payer_id=call.principal.payer_id,
        user_id=call.principal.user_id,
        key_id=call.principal.key_id,
        model=call.request.model.partition(":")[0],
        amount_nano_usd=bounds.amount_nano_usd,
        floor_nano_usd=bounds.comfortable_nano_usd,
        period=period_of(call.admitted_at_ms),
        terms=tiers.terms_of(call.principal.tier),
        admitted_at_ms=call.admitted_at_ms,
        expires_at_ms=call.admitted_at_ms + int(EXPIRES_AFTER_S_MIN + call_seconds_max) * 1000,
    )
    waited_from_ns = None
    while True:
        try:
            return await ledger.place_hold(request)
        except InsufficientCredit as refusal:
            now = clock.monotonic_ns()
            waited_from_ns = waited_from_ns or now
            left_s = WAIT_FOR_RELEASE_S_MAX - (now - waited_from_ns) / 1e9
            if refusal.fits_when_released and left_s > 0:
                await ledger.wait_for_release(request.payer_id, left_s)
            elif request.floor_nano_usd > bounds.floor_nano_usd:
                request = replace(request, floor_nano_usd=bounds.floor_nano_usd)
            else:
                raise
