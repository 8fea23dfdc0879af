"""Whether the collector of traces can be reached, and takes what it is sent: a message without any
span."""

import asyncio

from app.config import Config
from app.doctor.finding import Finding, Teller
from app.errors import ConfigError
from app.tracing.sending import Answer, Sender
from app.tracing.settings import Settings, settings_of

_NOTHING = b""
_tell = Teller("traces")
_PATH = "tracing.endpoint"


def check_tracing(config: Config, *, offline: bool) -> list[Finding]:
    """Asks it once; with ``offline`` not at all. No call fails for it, so nothing here is worse
    than a warning."""
    try:
        settings = settings_of(config)
    except ConfigError:
        return [_tell.ok("traces.not_asked", "not asked: see the configuration")]
    if settings is None:
        return [_tell.ok("traces.off", "off")]
    if offline:
        return [_tell.ok("traces.not_asked", "not asked (--offline)")]
    return [_said(settings, asyncio.run(_ask(settings)))]


async def _ask(settings: Settings) -> Answer:
    sender = Sender(settings)
    try:
        return await sender.post(_NOTHING)
    finally:
        await sender.close()


def _said(settings: Settings, answer: Answer) -> Finding:
    at = settings.shown
    if not answer.fault:
        return _tell.ok("traces.ok", f"the collector at {at} takes spans")
    if answer.refused:
        return _tell.warning(
            "traces.refused",
            f"the collector at {at} lets nobody in with these headers: {answer.fault}",
            "Put what it wants to see into tracing.headers; no call fails for it",
            path="tracing.headers",
        )
    if answer.again:
        return _tell.warning(
            "traces.unreachable",
            f"no spans can be sent to {at}: {answer.fault}",
            f"Check {_PATH}, the collector and the network; no call fails for it; --offline asks"
            " nobody",
            path=_PATH,
        )
    return _tell.warning(
        "traces.not_taken",
        f"what is at {at} takes no spans: {answer.fault}",
        f"Check that {_PATH} is a collector's port for OTLP over HTTP, 4318 mostly",
        path=_PATH,
    )
