"""What a tier gives each month, what happens past it, what it costs and what it allows."""

from app.config import Config, Tier, nano_usd
from app.config_types import Feature
from app.errors import PermissionDenied
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from app.ledger.entries import CreditTerms


class Tiers:
    """The configured tiers.

    All that take a tier's name raise PermissionDenied for one that the configuration no longer has:
    its users and orgs wait until the operator gives them another one or brings it back. Amounts are
    nano-USD and at most AMOUNT_NANO_USD_MAX.
    """

    def __init__(self, config: Config) -> None:
        self._tiers = config.tiers
        self._terms: dict[tuple[str, int], CreditTerms] = {}

    def names(self) -> list[str]:
        """All tiers, in the order of the file."""
        return list(self._tiers)

    def for_users(self) -> list[str]:
        """The tiers that a user can be on."""
        return [name for name, tier in self._tiers.items() if not tier.org]

    def for_orgs(self) -> list[str]:
        """The tiers that an org can be on."""
        return [name for name, tier in self._tiers.items() if tier.org]

    def is_for_orgs(self, tier: str) -> bool:
        """Whether orgs, and not users, are on this tier."""
        return self._named(tier).org

    def is_per_seat(self, tier: str) -> bool:
        """Whether credit and price count once for each seat."""
        return self._named(tier).per == "seat"

    def terms_of(self, tier: str, seats: int = 1) -> CreditTerms:
        """A tier's terms with so many seats; the same object every time.

        The credit is that of all seats, in one pool. ``seats`` does not matter to a tier that is
        not per seat, and is at least 0.
        """
        found = self._named(tier)
        units = max(seats, 0) if found.per == "seat" else 1
        terms = self._terms.get((tier, units))
        if terms is None:
            limit = found.overage_limit_usd
            made = CreditTerms(
                tier=tier,
                monthly_credit_nano_usd=_times(found.monthly_credit_usd, units),
                overage=found.overage == "pay_as_you_go",
                overage_limit_nano_usd=None if limit is None else nano_usd(limit),
                fee_nano_usd=_times(found.price_usd, units),
            )
            # Two threads may get here at once, and both are to have the same object.
            terms = self._terms.setdefault((tier, units), made)
        return terms

    def price_of(self, tier: str, seats: int = 1) -> int:
        """What a month on the tier costs, all seats together."""
        return self.terms_of(tier, seats).fee_nano_usd

    def invoice_days(self, tier: str) -> int:
        """How many days after an invoice was closed it is due."""
        return self._named(tier).invoice_days

    def has(self, tier: str, feature: Feature) -> bool:
        """Whether those on the tier may use the feature."""
        return feature in self._named(tier).features

    def features_of(self, tier: str) -> tuple[Feature, ...]:
        """What those on the tier may use, in the order of the file."""
        return tuple(self._named(tier).features)

    def with_feature(self, feature: Feature) -> list[str]:
        """The tiers that have the feature, in the order of the file."""
        return [name for name, tier in self._tiers.items() if feature in tier.features]

    def _named(self, tier: str) -> Tier:
        found = self._tiers.get(tier)
        if found is None:
            raise PermissionDenied(
                f"The payer's tier, {tier}, is not configured on this server any more. Ask its"
                " operator for one of: " + ", ".join(sorted(self._tiers)) + ".",
                code="tier_not_configured",
            )
        return found


def _times(usd: str, units: int) -> int:
    return min(nano_usd(usd) * units, AMOUNT_NANO_USD_MAX)
