"""From ``reasoning_effort`` and ``reasoning`` to Gemini's ``thinkingConfig``.

``reasoning`` is OpenRouter's object (OpenRouterTeam/docs, reasoning tokens): ``effort``,
``max_tokens``, ``exclude``, ``enabled``. The numbers of tokens that an effort stands for are those
of Google's own OpenAI-compatible API.
"""

from typing import Any

from plugins.chat import ChatRequest, Object
from plugins.contract import AdapterError, FailureKind
from plugins.gemini.models import Abilities

_BUDGETS = {
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    **dict.fromkeys(("high", "xhigh", "max"), 24576),
}
_KEYS = frozenset({"effort", "max_tokens", "exclude", "enabled"})
_BUDGET_TOKENS_MAX = 1_000_000


def config_of(request: ChatRequest, can: Abilities) -> Object | None:
    """The ``thinkingConfig``, None where the request says nothing. Raises AdapterError
    (BAD_REQUEST) for what the model cannot do.
    """
    said = request.reasoning
    if not isinstance(said, dict):
        if not isinstance(request.reasoning_effort, str):
            return None
        return _of_effort(request.reasoning_effort, can, "reasoning_effort", shown=True)
    if unknown := sorted(set(said) - _KEYS):
        raise _refused("reasoning", f"reasoning.{unknown[0][:64]}: not known")
    effort, tokens, enabled = said.get("effort"), said.get("max_tokens"), said.get("enabled")
    if effort is None and tokens is None:
        effort = request.reasoning_effort or None
    shown = said.get("exclude") is not True
    if enabled is False or effort == "none":
        return _off(can, "reasoning")
    if tokens is not None:
        return _of_tokens(tokens, can, shown=shown)
    if effort is not None:
        return _of_effort(effort, can, "reasoning", shown=shown)
    if enabled is None and shown:
        return None
    _must_think(can, "reasoning")
    return {"includeThoughts": shown}


def _of_effort(effort: Any, can: Abilities, param: str, *, shown: bool) -> Object | None:
    if effort == "none":
        return _off(can, param)
    if not isinstance(effort, str) or effort not in _BUDGETS:
        raise _refused(param, f"{param}: expected none, {', '.join(_BUDGETS)}")
    _must_think(can, param)
    if can.thinks == "level":
        return {"includeThoughts": shown, "thinkingLevel": dict(can.levels)[effort]}
    return {"includeThoughts": shown, "thinkingBudget": _BUDGETS[effort]}


def _of_tokens(tokens: Any, can: Abilities, *, shown: bool) -> Object:
    """Newer models know levels, and take a number of tokens too."""
    _must_think(can, "reasoning")
    good = isinstance(tokens, int) and not isinstance(tokens, bool)
    if not good or not 1 <= tokens <= _BUDGET_TOKENS_MAX:
        raise _refused("reasoning", "reasoning.max_tokens: expected a number of tokens")
    return {"includeThoughts": shown, "thinkingBudget": tokens}


def _off(can: Abilities, param: str) -> Object | None:
    if can.thinks == "no":
        return None
    if not can.rests:
        raise _refused(param, f"{param}: this model always thinks")
    return {"includeThoughts": False, "thinkingBudget": 0}


def _must_think(can: Abilities, param: str) -> None:
    if can.thinks == "no":
        raise _refused(param, f"{param}: this model does not think before it answers")


def _refused(param: str, message: str) -> AdapterError:
    return AdapterError(FailureKind.BAD_REQUEST, message, param=param)
