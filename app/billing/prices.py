"""Prices as configured → prices as rated. A decimal string of USD per million tokens, in nano-USD,
is exactly the integer that ``Price`` wants.
"""

from app.config import ProviderModel, TokenPrice, nano_usd
from app.errors import ConfigError
from plugins.contract import Price


def price_from_config(model: ProviderModel) -> Price:
    """A configured model's price. Raises ConfigError where there is none and it is not free."""
    if model.free:
        return Price(free=True)
    if model.price is None:
        raise ConfigError(
            f"model {model.id}: a price is needed; a model that costs nothing says free = true"
        )
    return token_price(model.price)


def token_price(price: TokenPrice) -> Price:
    """USD per million tokens → nano-USD per million tokens."""
    return Price(
        input=nano_usd(price.input),
        output=nano_usd(price.output),
        cache_read=_optional(price.cache_read),
        cache_write=_optional(price.cache_write),
        reasoning=_optional(price.reasoning),
    )


def compute_price(usd_per_second: str) -> Price:
    """USD per second of a machine's busy time, as a decimal string."""
    return Price(compute_per_second=nano_usd(usd_per_second))


def _optional(usd: str | None) -> int | None:
    return None if usd is None else nano_usd(usd)
