"""What a tier grants, and what happens past it."""

from app.config import Config, nano_usd
from app.errors import PermissionDenied
from app.ledger.entries import CreditTerms


class Tiers:
    """The configured tiers."""

    def __init__(self, config: Config) -> None:
        self._terms = {
            name: CreditTerms(
                tier=name,
                monthly_credit_nano_usd=nano_usd(tier.monthly_credit_usd),
                overage=tier.overage == "pay_as_you_go",
            )
            for name, tier in config.tiers.items()
        }

    def names(self) -> list[str]:
        """All tiers, in the order of the file."""
        return list(self._terms)

    def terms_of(self, tier: str) -> CreditTerms:
        """A tier's terms; the same object every time.

        Raises PermissionDenied for a tier that the configuration no longer has: its users wait
        until the operator gives them another one or brings it back.
        """
        terms = self._terms.get(tier)
        if terms is None:
            raise PermissionDenied(
                f"Your tier, {tier}, is not configured on this server any more. Ask its operator"
                " for one of: " + ", ".join(sorted(self._terms)) + ".",
                code="tier_not_configured",
            )
        return terms
