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


def paid_for(standing: Standing, request: HoldRequest) -> tuple[tuple[str, str], ...]:
    """The offers of a request that its payer pays for. Raises PermissionDenied for none."""
    if not (standing.providers_off or standing.models_off):
        return request.offers
    allowed = tuple(
        (provider, model)
        for provider, model in request.offers
        if provider not in standing.providers_off and model not in standing.models_off
    )
    if allowed:
        return allowed
    provider, model = request.offers[0]
    if model in standing.models_off:
        raise PermissionDenied(
            f"{standing.payer_name} has switched off the model {model!r} for its members:"
            f" {standing.models_off[model]}",
            code="model_switched_off",
        )
    names = ", ".join(dict.fromkeys(each for each, _ in request.offers))
    raise PermissionDenied(
        f"{standing.payer_name} has switched off {names} for its members:"
        f" {standing.providers_off[provider]}",
        code="provider_switched_off",
    )
