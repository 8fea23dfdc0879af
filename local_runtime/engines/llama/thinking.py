"""How hard a model is to think: what the request says, in the variables that its template reads."""

from typing import Any

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.chat_template import check_variables
from plugins.chat import ChatRequest

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_REASONING_FIELDS = frozenset({"effort", "enabled", "exclude"})
# Names under which templates read whether to think (Qwen3 and others; DeepSeek-V3.1, Granite).
_SWITCHES = ("enable_thinking", "thinking")
_EFFORT = "reasoning_effort"


def variables_of(request: ChatRequest, reads: frozenset[str], *, reasons: bool) -> dict[str, Any]:
    """The template's variables: ``chat_template_kwargs``, which win, and what follows from
    ``reasoning_effort`` and ``reasoning``. Raises RequestRefused.

    ``reasons``: whether the model thinks at all. A template that reads nothing of the kind cannot
    be told how hard to think.
    """
    given = check_variables(request.chat_template_kwargs)
    effort, param = _effort_of(request)
    if effort is None:
        return given
    switches = [name for name in _SWITCHES if name in reads]
    levels = _EFFORT in reads
    if not switches and not levels:
        if effort == ("none" if not reasons else True):
            return given  # as it does anyway
        raise RequestRefused(
            f"{param}: this model cannot be told how hard to think; leave it out.", param=param
        )
    variables: dict[str, Any] = dict.fromkeys(switches, effort not in ("none", False))
    if levels and isinstance(effort, str) and effort != "none":
        variables[_EFFORT] = effort
    return variables | given


def hides_reasoning(request: ChatRequest) -> bool:
    """Whether the thoughts are left out of the answer: ``reasoning.exclude``, as at OpenRouter."""
    reasoning = request.reasoning
    return isinstance(reasoning, dict) and reasoning.get("exclude") is True


def _effort_of(request: ChatRequest) -> tuple[str | bool | None, str]:
    """The effort, or only whether to think, and the parameter that says so."""
    effort, param = request.reasoning_effort, "reasoning_effort"
    reasoning = request.reasoning
    enabled: Any = None
    if isinstance(reasoning, dict):
        for key in reasoning.keys() - _REASONING_FIELDS:
            raise RequestRefused(
                f"reasoning.{key[:64]}: this model knows only effort, enabled and exclude.",
                param="reasoning",
            )
        enabled = reasoning.get("enabled")
        if enabled not in (None, True, False) or reasoning.get("exclude") not in (
            None, True, False,
        ):  # fmt: skip
            raise RequestRefused(
                "reasoning: enabled and exclude are true or false.", param="reasoning"
            )
        if reasoning.get("effort") is not None:
            effort, param = reasoning["effort"], "reasoning"
    if effort is not None and isinstance(effort, (str, int, float, list, dict)):
        if effort not in _EFFORTS:
            raise RequestRefused(
                f"{param}: must be one of {', '.join(_EFFORTS)}, not {str(effort)[:32]!r}.",
                param=param,
            )
        return ("none" if enabled is False else str(effort)), param
    if isinstance(enabled, bool):
        return (True if enabled else "none"), "reasoning"
    return None, param
