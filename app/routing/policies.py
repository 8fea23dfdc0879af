"""Orders of offers. Each is a sort key, smallest first; equal offers keep the catalog's order."""

from collections.abc import Callable, Sequence

from app.routing.health import Health
from app.routing.names import CHEAPEST, FASTEST, LOCAL, PREFERRED
from plugins.contract import Offer

LATENCY = "latency"
SORTS = {"price": CHEAPEST, "throughput": FASTEST, "latency": LATENCY}
"""What ``provider.sort`` in a request calls them."""

SPEED_ASSUMED = 50.0  # tokens per second of compute that nobody has measured yet
ANSWER_TOKENS_ASSUMED = 256  # what a price per request is spread over
_UNKNOWN_MS = float("inf")

SortKey = Callable[[Offer], float]


def sort_key(policy: str, health: Health, preferred: Sequence[str]) -> SortKey | None:
    """The order of a policy; None keeps the catalog's."""
    if policy in (FASTEST, LOCAL):
        speed = health.speed
        return lambda offer: -speed((offer.provider, offer.model))
    if policy == CHEAPEST:
        return lambda offer: output_price(offer, health)
    if policy == LATENCY:
        return lambda offer: first_token_ms(offer, health)
    if policy == PREFERRED and preferred:
        place = {provider: at for at, provider in enumerate(preferred)}
        return lambda offer: place.get(offer.provider, len(place))
    return None


def output_price(offer: Offer, health: Health) -> float:
    """Nano-USD per output token, for comparing: a price per second or per request is spread over
    the tokens that come in that time, or with it. The price of input decides between equals."""
    price = offer.price
    if price.free:
        return 0.0
    per_token = price.output / 1e6 + price.per_request / ANSWER_TOKENS_ASSUMED
    if price.compute_per_second:
        speed = health.speed((offer.provider, offer.model)) or SPEED_ASSUMED
        per_token += price.compute_per_second / speed
    per_unit = price.image / 1e6 + price.character / 1e6 + price.audio_second + price.video_second
    return per_token + per_unit + price.input / 1e12


def first_token_ms(offer: Offer, health: Health) -> float:
    """The mean time to the first token; offers of which it is not known come last."""
    known = health.figures((offer.provider, offer.model)).first_token_ms
    return _UNKNOWN_MS if known is None else known
