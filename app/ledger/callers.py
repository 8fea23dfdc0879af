"""The standing of callers, remembered on the writer thread until something may have changed it."""

from app.errors import PermissionDenied
from app.ledger.entries import HoldRequest, Standing
from app.ledger.standing import Ask, Standings

CACHED_MAX = 65_536


class Callers:
    """Standings by user, key and whom they bill to."""

    def __init__(self, standings: Standings) -> None:
        self.standings = standings
        self._known: dict[tuple[str, str, str | None], Standing] = {}

    def of(self, ask: Ask, request: HoldRequest) -> Standing:
        """Who pays for this request, within what. Raises what ``Standings.of_caller`` does."""
        caller = (request.user_id, request.key_id, request.bill_to)
        standing = self._known.get(caller)
        if standing is None:
            standing = self.standings.of_caller(ask, *caller)
            if len(self._known) >= CACHED_MAX:
                self._known.clear()
            self._known[caller] = standing
        return standing

    def forget(self) -> None:
        """Users, orgs, keys or limits may have changed: ask again."""
        self._known.clear()


def paid_for(standing: Standing, request: HoldRequest) -> tuple[str, ...]:
    """The providers of a request that its payer pays for. Raises PermissionDenied for none."""
    if not (standing.providers_off or standing.models_off):
        return request.providers
    reason = standing.models_off.get(request.model)
    if reason is not None:
        raise PermissionDenied(
            f"{standing.payer_name} has switched off the model {request.model!r} for its members:"
            f" {reason}",
            code="model_switched_off",
        )
    allowed = tuple(name for name in request.providers if name not in standing.providers_off)
    if not allowed and request.providers:
        names = ", ".join(request.providers)
        reason = standing.providers_off[request.providers[0]]
        raise PermissionDenied(
            f"{standing.payer_name} has switched off {names} for its members: {reason}",
            code="provider_switched_off",
        )
    return allowed
