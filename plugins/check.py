"""Runs the conformance kit against a plugin and the provider itself: ``turnpike plugins check``.

A provider that is not played says less of itself: which keys it saw, whether abandoned work was
stopped. Rules that need it are skipped here, with the reason; ``conformance.py`` shows how to run
them with pytest.
"""

import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from plugins import conformance, conformance_tasks
from plugins.conformance import CHECKS, Subject
from plugins.conformance_rules import NotConforming, Skipped
from plugins.conformance_tasks import TASK_CHECKS, TaskSubject
from plugins.contract import Adapter, AdapterError, Fetch, ModelEntry, Plugin, Price, Toolbox
from plugins.tasks import CONVERSATIONAL
from plugins.trial import MODEL, Calls, Trial

PROVIDER_ID = "check"
_MANY_CALLS = {
    conformance.calls_run_side_by_side,
    conformance.cancelling_is_survived,
    conformance_tasks.calls_run_side_by_side,
    conformance_tasks.cancelling_is_survived,
}
Rule = Callable[[], Awaitable[Skipped]]


class Finding(msgspec.Struct, frozen=True):
    """What came of one rule. ``reason`` is empty where it holds."""

    rule: str
    says: str
    result: Literal["ok", "failed", "skipped"]
    reason: str = ""


async def check(
    plugin: Plugin, settings: dict[str, Any], trial: Trial, *, user_agent: str, fetch: Fetch
) -> list[Finding]:
    """Every rule with what came of it. ``settings`` are as in the configuration, ``base_url``
    included. Raises BadTrial for a parameter that the request does not have.
    """
    redact = partial(_without, secret=trial.api_key)
    toolbox = Toolbox(
        provider_id=PROVIDER_ID,
        models=(_model(trial),),
        log=logging.getLogger("turnpike.check"),
        monotonic_ns=time.monotonic_ns,
        user_agent=user_agent,
        fetch=fetch,
    )
    try:
        adapter = plugin.build(msgspec.convert(settings, plugin.settings), toolbox)
        await adapter.start()
    except Exception as error:  # noqa: BLE001 - whatever a plugin under check may raise
        return [Finding("it_starts", _STARTS, "failed", redact(_told(error)))]
    found = [Finding("it_starts", _STARTS, "ok")]
    try:
        found += await _rules(adapter, trial, toolbox.models, redact)
    finally:
        found.append(await _close(adapter, redact))
    return found


_STARTS = "Its settings are taken, and the adapter is built and started."
_CLOSES = "`close` ends without a failure."


def _model(trial: Trial) -> ModelEntry:
    return ModelEntry(
        id=MODEL, upstream_id=trial.upstream_id, tasks=(trial.task,), price=Price(free=True)
    )


async def _rules(
    adapter: Adapter, trial: Trial, models: tuple[ModelEntry, ...], redact: Callable[[str], str]
) -> list[Finding]:
    """The rules one after the other; once the provider itself has failed, the rest are skipped."""
    found: list[Finding] = []
    failed = ""
    for rule, run in _planned(adapter, trial, models):
        if failed:
            found.append(_finding(rule, "skipped", failed))
        elif trial.quick and rule in _MANY_CALLS:
            found.append(_finding(rule, "skipped", "takes many calls; left out by --quick"))
        else:
            try:
                why = await run()
                found.append(_finding(rule, "skipped" if why else "ok", redact(why or "")))
            except NotConforming as error:
                found.append(_finding(rule, "failed", redact(str(error))))
            except AdapterError as error:
                found.append(_finding(rule, "failed", redact(_told(error))))
                failed = f"the provider failed before ({error.kind})"
            except Exception as error:  # noqa: BLE001 - as above
                found.append(_finding(rule, "failed", redact(_told(error))))
    return found


def _planned(
    adapter: Adapter, trial: Trial, models: tuple[ModelEntry, ...]
) -> Sequence[tuple[Callable[..., Any], Rule]]:
    calls = Calls(trial, _honoured(adapter))
    known: dict[str, Any] = {
        "adapter": adapter,
        "refused": calls.unknown(),
        "must_refuse": False,  # servers with one model do not look at its name
        "models": models,
        "patience_s": trial.patience_s,
    }
    if trial.task == CONVERSATIONAL:
        subject = Subject(
            call=calls.call,
            tools=calls.tools if trial.tools else None,
            repeatable=False,
            **known,
        )
        return [(rule, partial(rule, subject)) for rule in CHECKS]
    tasks = TaskSubject(call=calls.call, **known)
    return [(rule, partial(rule, tasks)) for rule in TASK_CHECKS]


def _honoured(adapter: Adapter) -> frozenset[str] | None:
    try:
        return next((o.supported_params for o in adapter.offers() if o.model == MODEL), None)
    except Exception:  # noqa: BLE001 - as above; a rule about offers tells it
        return None


async def _close(adapter: Adapter, redact: Callable[[str], str]) -> Finding:
    try:
        await adapter.close()
    except Exception as error:  # noqa: BLE001 - as above
        return Finding("it_closes", _CLOSES, "failed", redact(_told(error)))
    return Finding("it_closes", _CLOSES, "ok")


def _finding(
    rule: Callable[..., Any], result: Literal["ok", "failed", "skipped"], reason: str
) -> Finding:
    says = " ".join((inspect.getdoc(rule) or "").split())
    return Finding(rule.__name__, says, result, reason)


def _told(error: Exception) -> str:
    if isinstance(error, AdapterError):
        detail = f" ({error.detail})" if error.detail else ""
        return f"{error.kind}: {error.message}{detail}"
    if isinstance(error, TimeoutError) and not str(error):
        return "it took longer than a call may take"
    return f"{type(error).__name__}: {error}"[:512]


def _without(text: str, *, secret: str | None) -> str:
    """Text without the key, whoever put it there."""
    return text.replace(secret, "[key]") if secret else text
