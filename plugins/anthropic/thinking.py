"""From ``reasoning_effort`` and ``reasoning`` to Anthropic's ``thinking`` and effort.

``reasoning`` is OpenRouter's object (OpenRouterTeam/docs, reasoning tokens): ``effort``,
``max_tokens``, ``exclude``, ``enabled``; so are the shares of the answer that an effort stands for
where a model wants a number of tokens. Limits are those of Anthropic's extended thinking.
"""

import msgspec

from plugins.anthropic.models import Abilities
from plugins.chat import ChatRequest, Object
from plugins.contract import AdapterError, FailureKind

BUDGET_TOKENS_MIN = 1024
_BUDGET_TOKENS_MAX = 128_000
_SHARE_PERCENT = {"minimal": 10, "low": 20, "medium": 50, "high": 80, "xhigh": 95, "max": 95}
_EFFORTS = frozenset(_SHARE_PERCENT)
_KEYS = frozenset({"effort", "max_tokens", "exclude", "enabled"})


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How much the caller wants to be thought: ``effort`` or ``tokens``, or not at all (``off``);
    nothing said where all are empty. ``hidden``: what was thought is not to be sent back.
    """

    effort: str | None = None
    tokens: int | None = None
    off: bool = False
    hidden: bool = False
    param: str = "reasoning_effort"

    @property
    def on(self) -> bool:
        """Whether thinking was asked for."""
        return self.effort is not None or self.tokens is not None


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: the ``thinking`` object and the effort, each only where it says something."""

    block: Object | None = None
    effort: str | None = None


def wish_of(request: ChatRequest) -> Wish:
    """What the request says of reasoning. Raises AdapterError (BAD_REQUEST)."""
    said = request.reasoning
    if not isinstance(said, dict):
        effort = request.reasoning_effort
        if not isinstance(effort, str):
            return Wish()
        return _of_effort(effort, param="reasoning_effort")
    if unknown := sorted(set(said) - _KEYS):
        raise _refused("reasoning", f"reasoning.{unknown[0][:64]}: not known")
    effort, tokens = said.get("effort"), said.get("max_tokens")
    enabled, hidden = said.get("enabled"), said.get("exclude") is True
    if effort is None and tokens is None and isinstance(request.reasoning_effort, str):
        effort = request.reasoning_effort
    if enabled is False or (effort is None and tokens is None and enabled is None):
        return Wish(off=enabled is False, hidden=hidden, param="reasoning")
    if tokens is not None:
        if isinstance(tokens, bool) or not isinstance(tokens, int):
            raise _refused("reasoning", "reasoning.max_tokens: expected a whole number")
        return Wish(tokens=tokens, hidden=hidden, param="reasoning")
    return _of_effort(effort or "medium", param="reasoning", hidden=hidden)


def thinking_of(wish: Wish, can: Abilities, tokens_max: int) -> Thinking:
    """What to send to a Claude model. Raises AdapterError (BAD_REQUEST) for what it cannot do."""
    if wish.off:
        # Some of the newer models think unless they are told not to.
        return Thinking(block={"type": "disabled"} if can.adaptive else None)
    if not wish.on:
        return Thinking()
    if not can.thinks:
        raise _refused(wish.param, f"{wish.param}: this model cannot be asked to think")
    if wish.tokens is None and can.adaptive:
        block = {"type": "adaptive", "display": "omitted" if wish.hidden else "summarized"}
        return Thinking(block=block, effort=_effort(wish.effort or "medium", can))
    if not can.budget:
        raise _refused(wish.param, "reasoning.max_tokens: this model takes reasoning.effort")
    return Thinking(block={"type": "enabled", "budget_tokens": _budget(wish, tokens_max)})


def _of_effort(effort: object, *, param: str, hidden: bool = False) -> Wish:
    if effort == "none":
        return Wish(off=True, hidden=hidden, param=param)
    if not isinstance(effort, str) or effort not in _EFFORTS:
        raise _refused(param, f"{param}: expected none, {', '.join(_SHARE_PERCENT)}")
    return Wish(effort=effort, hidden=hidden, param=param)


def _effort(effort: str, can: Abilities) -> str:
    if effort == "minimal":
        return "low"
    return "max" if effort == "xhigh" and not can.xhigh else effort


def _budget(wish: Wish, tokens_max: int) -> int:
    """Tokens to think within: at least 1024, and fewer than the whole answer has."""
    if tokens_max <= BUDGET_TOKENS_MIN:
        raise _refused(
            "max_completion_tokens",
            f"max_completion_tokens: must be over {BUDGET_TOKENS_MIN} for this model to think",
        )
    if wish.tokens is None:
        share = tokens_max * _SHARE_PERCENT[wish.effort or "medium"] // 100
        return min(max(share, BUDGET_TOKENS_MIN), _BUDGET_TOKENS_MAX)
    if not BUDGET_TOKENS_MIN <= wish.tokens < tokens_max:
        raise _refused(
            wish.param,
            f"reasoning.max_tokens: expected {BUDGET_TOKENS_MIN} or more, and fewer than "
            f"max_completion_tokens ({tokens_max})",
        )
    return wish.tokens


def _refused(param: str, message: str) -> AdapterError:
    return AdapterError(FailureKind.BAD_REQUEST, message, param=param)
