"""From an authenticated request to a ``Call``: the same for every dialect and task."""

from litestar.types import HTTPScope

from app.api import explain
from app.api.endpoint import call_id_of
from app.api.repeats import bill_to
from app.api.sse import FirstBytes
from app.api.traced import trace_of
from app.api.waiting import waits_for_model
from app.billing.payers import Payers
from app.clock import Clock
from app.gateway.call import Call, Repeatable
from app.identity.confinement import Confinements
from app.identity.own_keys import OwnKeys
from app.identity.preferred import PreferredOrders
from app.identity.principal import Principal
from app.ids import CallId
from plugins.tasks import Request


class Calls:
    """Makes calls, with all that routing has to know of their callers."""

    def __init__(
        self,
        clock: Clock,
        payers: Payers,
        confinements: Confinements,
        preferred: PreferredOrders,
        own_keys: OwnKeys,
    ) -> None:
        self._clock = clock
        self._payers = payers
        self._confinements = confinements
        self._preferred = preferred
        self._own_keys = own_keys
        self.first_bytes = FirstBytes()

    async def begin(
        self,
        scope: HTTPScope,
        principal: Principal,
        request: Request,
        body_bytes: int,
        repeatable: Repeatable | None = None,
    ) -> Call:
        """A call that has been admitted now. Raises InvalidRequest for headers that cannot be."""
        clock = self._clock
        call = Call(
            id=CallId(call_id_of(scope)),
            principal=principal,
            request=request,
            body_bytes=body_bytes,
            admitted_at_ms=clock.now_ms(),
            started_ns=clock.monotonic_ns(),
            bill_to=bill_to(scope),
            confined_to=self._confinements.labels_for(principal.user_id, principal.key_id),
            preferred=self._preferred.of(principal.user_id),
            explain=explain.is_asked(scope),
            wait_for_model=waits_for_model(scope),
            repeatable=repeatable,
            trace=trace_of(scope),
        )
        if self._confinements.of_orgs or self._own_keys.any:
            await self._add_payers(call)
        return call

    async def _add_payers(self, call: Call) -> None:
        """What whoever pays is confined to, and has keys for. The hold must name the same payer."""
        payer_id = await self._payers.of_caller(call.principal, call.bill_to)
        if payer_id is not None:
            call.payer_id = payer_id
            call.confined_to = (*call.confined_to, *self._confinements.for_payer(payer_id))
            call.own_keys = self._own_keys.of(payer_id)
