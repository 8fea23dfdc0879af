"""What models on Amazon Bedrock can be asked for, by the id they are called by.

Ids are ``provider.model``, with a region before them where they name an inference profile; ARNs of
application profiles, imported and provisioned models do not say what they are. Sources: vercel/ai
(``amazon-bedrock``), Amazon's pages on Converse, on structured outputs and on each provider's own
fields.
"""

from functools import cache
from typing import Literal

import msgspec

from plugins.anthropic.models import Abilities, abilities_of

Family = Literal["claude", "nova", "nova-2", "gpt-oss", "mistral", "other"]
_COMMON = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "stop", "stream", "stream_options"),
        *("temperature", "top_p", "tools", "tool_choice"),
    }
)
_MORE: dict[Family, frozenset[str]] = {
    "nova": frozenset({"top_k"}),
    "nova-2": frozenset({"top_k", "reasoning", "reasoning_effort"}),
    "gpt-oss": frozenset({"reasoning", "reasoning_effort"}),
    "mistral": frozenset({"top_k"}),
}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """``abilities`` are a Claude model's."""

    family: Family
    abilities: Abilities = Abilities()

    @property
    def switches_parallel(self) -> bool:
        """Whether it can be kept from calling several tools at once: Converse has no field for it,
        and only from Claude 4.5 on is the model's own one taken (BerriAI/litellm)."""
        return self.family == "claude" and self.abilities.version >= (4, 5)

    @property
    def structured(self) -> bool:
        """Whether a JSON schema is known to be held to: Claude 4.5 and 4.6 are (Anthropic's page on
        structured outputs); newer ones were seen to refuse it here (vercel/ai)."""
        return self.family == "claude" and (4, 5) <= self.abilities.version <= (4, 6)

    @property
    def params(self) -> frozenset[str]:
        """The request parameters that are honoured."""
        if self.family != "claude":
            return _COMMON | _MORE.get(self.family, frozenset())
        found = set(_COMMON)
        if self.abilities.sampling:
            found.add("top_k")
        else:
            found -= {"temperature", "top_p"}
        if self.abilities.thinks:
            found |= {"reasoning", "reasoning_effort"}
        if self.switches_parallel:
            found.add("parallel_tool_calls")
        if self.structured:
            found |= {"response_format", "structured_outputs"}
        return frozenset(found)


@cache
def model_of(model_id: str) -> Model:
    """The model that an id or an ARN names."""
    if "claude-" in model_id:
        return Model(family="claude", abilities=abilities_of(model_id))
    if "amazon.nova-2" in model_id:
        return Model(family="nova-2")
    if "amazon.nova-" in model_id:
        return Model(family="nova")
    if "openai." in model_id:
        return Model(family="gpt-oss")
    if "mistral." in model_id:
        return Model(family="mistral")
    return Model(family="other")
