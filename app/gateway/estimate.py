"""The most a call can use, known before it is dispatched: what the hold is made from. Pure.

Prompt tokens are bounded by bytes: every token of a byte-level vocabulary stands for at least one
byte, and the JSON text of a string is never shorter than the string. What a chat template adds is
bounded per message. Output is bounded by the limit that is sent along. Compute time has no such
law, so the bound is a generous guess and the engine is told to stop at what the hold pays for.
A token counts as one of its dearest bucket, sound included, and a call as one request. No request
of this form makes images: its modalities are text and audio.
"""

from collections.abc import Container

import msgspec

from app.billing.rating import affordable_compute_ns, affordable_output_tokens, ceiling
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from plugins.chat import ChatRequest
from plugins.contract import Offer

TEMPLATE_TOKENS_PER_CALL = 256  # a default system prompt, the generation prompt
TEMPLATE_TOKENS_PER_MESSAGE = 16
TOKENS_PER_ATTACHMENT = 16_384  # an image, sound or file that is given by reference
OUTPUT_TOKENS_DEFAULT = 8_192  # no limit asked for and none known of the model

# A reply shorter than this is not worth having; less money than that waits for more to be released.
OUTPUT_TOKENS_COMFORTABLE = 256
OUTPUT_TOKENS_FLOOR = 16

_MS = 1_000_000
COMPUTE_GENEROUS = (10_000 * _MS, 100 * _MS, 1_000 * _MS)  # fixed, per prompt and per output token
COMPUTE_COMFORTABLE = (1_000 * _MS, 5 * _MS, 50 * _MS)
COMPUTE_FLOOR_NS = 100 * _MS


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one call can cost, over all the offers that may serve it.

    ``amount`` covers the worst case. ``comfortable`` is the least worth starting with while other
    calls still hold money that may come back; ``floor`` the least worth starting with at all.
    """

    amount_nano_usd: int
    comfortable_nano_usd: int
    floor_nano_usd: int
    input_tokens: int


def bounds(
    request: ChatRequest,
    body_bytes: int,
    offers: tuple[Offer, ...],
    unpaid: Container[str] = (),
) -> Bounds:
    """Bound the cost of a request over ``offers``; all amounts are nano-USD. The payer has keys of
    their own for the providers in ``unpaid``."""
    prompt = input_tokens_max(request, body_bytes)
    amount = comfortable = floor = 0
    for offer in offers:
        if not offer.price.free and offer.provider not in unpaid:
            most, fair, least = _costs(request, offer, min(prompt, offer.context_length or prompt))
            amount = max(amount, most)
            comfortable = max(comfortable, fair)
            floor = max(floor, least)
    amount = min(amount, AMOUNT_NANO_USD_MAX)
    return Bounds(
        amount_nano_usd=amount,
        comfortable_nano_usd=min(comfortable, amount),
        floor_nano_usd=min(floor, amount),
        input_tokens=prompt,
    )


def _costs(request: ChatRequest, offer: Offer, tokens_in: int) -> tuple[int, int, int]:
    """The amount, comfortable and floor of one offer."""
    price, wanted = offer.price, output_tokens_max(request, offer)
    asked = request.output_tokens_limit() is not None
    if asked and not price.compute_per_second:  # all or nothing
        whole = ceiling(price, tokens_in, wanted, 0)
        return whole, whole, whole
    fair = wanted if asked else min(wanted, OUTPUT_TOKENS_COMFORTABLE)
    least = wanted if asked else min(wanted, OUTPUT_TOKENS_FLOOR)
    return (
        ceiling(price, tokens_in, wanted, _compute_ns(COMPUTE_GENEROUS, tokens_in, wanted)),
        ceiling(price, tokens_in, fair, _compute_ns(COMPUTE_COMFORTABLE, tokens_in, fair)),
        ceiling(price, tokens_in, least, _least_compute_ns(offer, tokens_in, least)),
    )


def input_tokens_max(request: ChatRequest, body_bytes: int) -> int:
    """An upper bound of the prompt's tokens."""
    attachments = 0
    for message in request.messages:
        if isinstance(message.content, list):
            attachments += sum(part.get("type") != "text" for part in message.content)
    return (
        body_bytes
        + TEMPLATE_TOKENS_PER_CALL
        + TEMPLATE_TOKENS_PER_MESSAGE * len(request.messages)
        + TOKENS_PER_ATTACHMENT * attachments
    )


def output_tokens_max(request: ChatRequest, offer: Offer) -> int:
    """An upper bound of the tokens of all ``n`` answers together."""
    limit = request.output_tokens_limit()
    if limit is None:
        limit = offer.output_tokens_max or offer.context_length or OUTPUT_TOKENS_DEFAULT
    if offer.context_length is not None:
        limit = min(limit, offer.context_length)
    return limit * request.answers()


def output_tokens_to_send(
    request: ChatRequest, offer: Offer, amount_nano_usd: int | None, input_tokens: int
) -> int:
    """The limit per answer that the hold pays for: at most what the client asked for. None: nothing
    is to pay."""
    answers = request.answers()
    wanted = output_tokens_max(request, offer)
    if offer.price.free or amount_nano_usd is None:
        return max(1, wanted // answers)
    tokens_in = min(input_tokens, offer.context_length or input_tokens)
    affordable = affordable_output_tokens(offer.price, amount_nano_usd, tokens_in)
    if affordable is not None:
        wanted = min(wanted, affordable)
    return max(1, wanted // answers)


def limit_to_send(
    request: ChatRequest, offer: Offer, amount_nano_usd: int | None, input_tokens: int
) -> int | None:
    """As ``output_tokens_to_send``; None where the model's context is the only limit, and is paid
    for: many servers refuse a limit that does not fit beside the prompt, whose length only they
    know."""
    limit = output_tokens_to_send(request, offer, amount_nano_usd, input_tokens)
    asked = request.output_tokens_limit() or offer.output_tokens_max
    if asked is None and limit == offer.context_length:
        return None
    return limit


def compute_ns_to_send(offer: Offer, amount_nano_usd: int | None) -> int | None:
    """The compute time that the hold pays for; None where compute is not billed.

    For an offer that is priced by compute and by tokens as well it is a bound of its own: what the
    tokens take comes on top.
    """
    if amount_nano_usd is None or offer.price.free or not offer.price.compute_per_second:
        return None
    return affordable_compute_ns(offer.price, amount_nano_usd)


def _least_compute_ns(offer: Offer, tokens_in: int, tokens_out: int) -> int:
    """An engine of our own ends an answer in good order when its time is up; elsewhere the answer
    would be lost, so there the least is what an answer of that length may well take.
    """
    if offer.abort_stops_billing:
        return COMPUTE_FLOOR_NS
    return _compute_ns(COMPUTE_COMFORTABLE, tokens_in, tokens_out)


def _compute_ns(rates: tuple[int, int, int], tokens_in: int, tokens_out: int) -> int:
    fixed, per_input, per_output = rates
    return fixed + per_input * tokens_in + per_output * tokens_out
