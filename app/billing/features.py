"""What a tier allows beside calls."""

from app.billing.tiers import Tiers
from app.config_types import Feature
from app.errors import PermissionDenied

_WORDS: dict[Feature, str] = {
    "sso": "Single sign-on is",
    "audit_log": "The audit log is",
    "resource_groups": "Resource groups are",
    "spending_limits": "Spending limits are",
    "provider_switches": "Provider switches are",
}


def require_feature(tiers: Tiers, tier: str, feature: Feature) -> None:
    """Raise PermissionDenied where the tier does not have the feature; the message says which do.

    A tier that is not configured any more has none.
    """
    having = tiers.with_feature(feature)
    if tier not in having:
        raise PermissionDenied(
            f"{_WORDS[feature]} not part of the tier {tier} ({feature}). Tiers that have them:"
            f" {', '.join(having) or 'none'}.",
            code="feature_not_in_tier",
        )
