"""What is known of one kind of OpenAI-compatible provider, as data.

Rows are in ``presets``; everything about them that is not the default costs a row one field.
"""

from enum import StrEnum

import msgspec

from plugins.chat import PARAMS

STRUCTURED_OUTPUTS = "structured_outputs"


class SchemaForm(StrEnum):
    """How a JSON schema is asked for in ``response_format``."""

    OPENAI = "openai"  # {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}
    FLAT = "flat"  # {"type": "json_schema", "schema": ...}
    JSON_OBJECT = "json_object"  # {"type": "json_object", "schema": ...}


class Thoughts(StrEnum):
    """What a conversation's earlier reasoning is sent back as."""

    AS_GIVEN = "as_given"
    REASONING = "reasoning"  # under that name only
    REASONING_CONTENT = "reasoning_content"  # under that name only
    DROPPED = "dropped"  # the provider refuses it


class TextOnly(StrEnum):
    """Whose content must be a string and not a list of parts. Lists with other parts than text stay
    as they are: what a model can look at is routing's matter."""

    NOBODY = "nobody"
    ALL_BUT_USER = "all_but_user"
    ALL = "all"


class PriceForm(StrEnum):
    """Where a listing keeps its prices, and their unit."""

    NONE = "none"
    EACH = "each"  # pricing.prompt, pricing.completion …: USD per token
    PER_MILLION = "per_million"  # pricing.input, pricing.output …: USD per million tokens
    METADATA = "metadata"  # metadata.pricing.input_tokens …: USD per million tokens
    NOVITA = "novita"  # input_token_price_per_m …: USD/10^4 per million tokens
    XAI = "xai"  # prompt_text_token_price …: US cents per 10^8 tokens
    ROUTER = "router"  # providers[].pricing.input …: USD per million tokens


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider lists its models. ``complete`` says that all of it is priced, so that a price
    of zero means free and not unknown."""

    path: str = "/models"
    prices: PriceForm = PriceForm.NONE
    complete: bool = False


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of provider. ``base_url`` is None where each account has its own.

    - ``key_header``: the header of the key; a bearer key where it is ``authorization``.
    - ``headers``: sent with every request; those of the configuration win.
    - ``listing``: None where the provider does not list what can be called.
    - ``params``: the request parameters that it honours, ``structured_outputs`` among them where a
      JSON schema is held to; None where it passes all on.
    - ``values``: of a parameter's values, those that it takes; for the others a call is refused.
    - ``renamed``: its own names of parameters.
    - ``limit_name``: the one name of the limit that it knows, None where it knows both.
    - ``stream_options``: whether that may be sent; without it usage comes unasked.
    - ``developer_role``: whether it knows that role; elsewhere it is sent as ``system``.
    - ``message_fields``: the fields that a message may have, null ones never; None: any.
    - ``inlines``: what callers name by URL is read here and sent as data.
    - ``reasoning_apart``: reasoning tokens may come on top of ``completion_tokens``.
    - ``abort_stops_billing``: leaving a stream ends its cost.
    - ``resets``: pairs of headers on a 429: what remains, and when more comes.
    """

    name: str
    title: str
    base_url: str | None = None
    needs_key: bool = True
    key_header: str = "authorization"
    headers: tuple[tuple[str, str], ...] = ()
    listing: Listing | None = Listing()
    params: frozenset[str] | None = None
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    limit_name: str | None = None
    schema_form: SchemaForm = SchemaForm.OPENAI
    stream_options: bool = True
    developer_role: bool = False
    message_fields: frozenset[str] | None = None
    thoughts: Thoughts = Thoughts.AS_GIVEN
    text_only: TextOnly = TextOnly.NOBODY
    inlines: bool = False
    reasoning_apart: bool = False
    abort_stops_billing: bool = False
    resets: tuple[tuple[str, str], ...] = ()


def params(*names: str) -> frozenset[str]:
    """A set of parameters, with those that every provider takes. Raises ValueError for a name that
    is no parameter: a typing error would keep an offer from serving."""
    unknown = set(names) - set(PARAMS) - {STRUCTURED_OUTPUTS}
    if unknown:
        raise ValueError(f"no such parameters: {', '.join(sorted(unknown))}")
    return COMMON | frozenset(names)


COMMON = frozenset(
    {
        *("stream", "stream_options", "max_tokens", "max_completion_tokens"),
        *("temperature", "top_p", "stop", "tools", "tool_choice", "response_format"),
    }
)
PENALTIES = ("frequency_penalty", "presence_penalty")
LOGPROBS = ("logprobs", "top_logprobs")
SAMPLING = ("top_k", "min_p", "repetition_penalty")
STANDARD_RESETS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
)
PLAIN_FIELDS = frozenset({"role", "content", "tool_calls", "tool_call_id"})
"""The fields of a message that every provider takes."""
