"""Route table and middleware order on one screen.

guard (id, headers) → Litestar's router → ``endpoint`` (method, permission) or an ordinary Litestar
handler (the /api surface, behind ``require_permission``) → handler. Default deny: a route without a
permission cannot be written down here.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp
from prometheus_client.registry import Collector

from app.api.admin.local_wire import LocalModels
from app.api.admin.routes import admin_router
from app.api.auth import Authenticator, Permission
from app.api.calls import Calls
from app.api.endpoint import Handler, endpoint
from app.api.envelope import error_body, error_headers, from_status
from app.api.guard import Guard, no_answers
from app.api.health import Metrics, Ready, healthz
from app.api.local_events import LocalEvents
from app.api.openai.audio import SpeechRoute, TranscriptionRoute
from app.api.openai.chat import Chat
from app.api.openai.embeddings import EmbeddingRoute
from app.api.openai.images import ImageEdits, ImageGenerations
from app.api.openai.models import Models
from app.api.openai.rerank import RerankRoute
from app.api.openai.task_calls import TaskCalls
from app.api.openai.video_jobs import VideoJobs
from app.api.openai.videos import Videos
from app.api.openrouter.routes import openrouter_router
from app.api.refusals import Refusals
from app.api.services import Services
from app.api.trace_metrics import TraceMetrics
from app.config import Server
from app.errors import CallError, Internal
from app.gateway.serve import Gateway
from plugins.contract import Fetch

if TYPE_CHECKING:
    from app.tracing.tracer import Tracing

log = logging.getLogger("turnpike.api")
ADMIN_BODY_BYTES_MAX = 1024 * 1024
_GET = frozenset({"GET", "HEAD"})
_POST = frozenset({"POST"})


class Process(NamedTuple):
    """What the process that serves can be asked to do; ``restart`` only where one serves. And what
    it has to say in ``/metrics`` beside its calls: ``collectors``. ``tracing`` makes the traces of
    calls, where they are switched on."""

    reload: Callable[[], Awaitable[Any]]
    restart: Callable[[], Awaitable[Any]] | None = None
    collectors: Sequence[Collector] = ()
    tracing: "Tracing | None" = None


def build(
    *,
    server: Server,
    services: Services,
    gateway: Gateway,
    authenticator: Authenticator,
    ready_checks: Callable[[], dict[str, str]],
    process: Process,
    fetch: Fetch,
    videos: VideoJobs,
    local: LocalModels,
) -> ASGIApp:
    """The whole application."""
    calls, answers = _calls(services), no_answers()
    chat = Chat(gateway, calls, services.repeats, server.body_bytes_max, server.heartbeat_seconds)
    size = server.body_bytes_max
    tasks = TaskCalls(gateway, calls, services.repeats, fetch)
    video = Videos(gateway, calls, videos, size)
    models = Models(services.catalog, services.health, services.clock, services.probe_results)
    ready = Ready(ready_checks, lambda: {line.model: line.state for line in local.every().data})
    more = (*process.collectors, TraceMetrics(process.tracing))
    metrics = Metrics(gateway, services, local, ready_checks, answers, more)
    refusals = Refusals(gateway.tally)

    def route(path: str, handler: Any, methods: frozenset[str], permission: Permission) -> Any:
        return endpoint(
            path,
            handler,
            methods=methods,
            permission=permission,
            authenticator=authenticator,
            mount=handler in (models, video),
            refusals=refusals if permission is Permission.CALL else None,
            tracing=process.tracing if permission is Permission.CALL else None,
        )

    chat_route = route("/v1/chat/completions", chat, _POST, Permission.CALL)
    app = Litestar(
        route_handlers=[
            chat_route,
            route("/v1/embeddings", EmbeddingRoute(tasks, size), _POST, Permission.CALL),
            route("/v1/rerank", RerankRoute(tasks, size), _POST, Permission.CALL),
            route("/v1/images/generations", ImageGenerations(tasks, size), _POST, Permission.CALL),
            route("/v1/images/edits", ImageEdits(tasks, size), _POST, Permission.CALL),
            route("/v1/audio/speech", SpeechRoute(tasks, size), _POST, Permission.CALL),
            route(
                "/v1/audio/transcriptions", TranscriptionRoute(tasks, size), _POST, Permission.CALL
            ),
            route("/v1/videos", video, _GET | _POST | {"DELETE"}, Permission.CALL),
            route("/v1/models", models, _GET, Permission.CALL),
            *(route(*each, _GET, Permission.PUBLIC) for each in _probes(ready, metrics)),
            route("/api/local/events", LocalEvents(local), _GET, Permission.OWNER),
            admin_router(),
            openrouter_router(),
        ],
        exception_handlers={CallError: _refuse, HTTPException: _refuse_http, Exception: _fault},
        request_max_body_size=ADMIN_BODY_BYTES_MAX,
        openapi_config=None,
        logging_config=None,
        state=State(
            {
                "services": services,
                "authenticator": authenticator,
                "process": process,
                "local": local,
            }
        ),
    )
    return Guard(app, {"/v1/chat/completions": chat_route.fn}, answers)


def _calls(services: Services) -> Calls:
    return Calls(
        services.clock,
        services.payers,
        services.confinements,
        services.preferred,
        services.provider_keys.own,
    )


def _probes(ready: Ready, metrics: Metrics) -> list[tuple[str, Handler]]:
    """What load balancers and Prometheus ask, without a key."""
    return [("/livez", healthz), ("/healthz", healthz), ("/readyz", ready), ("/metrics", metrics)]


def _refuse(request: Request[Any, Any, Any], error: CallError) -> Response[bytes]:
    call_id: str = request.scope["state"]["call_id"]
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(
        error_body(error, call_id),
        status_code=error.status,
        media_type="application/json",
        headers=headers,
    )


def _refuse_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    detail = f"{error.detail.rstrip('.')}."
    extra = error.extra
    if isinstance(extra, list):
        detail += "".join(f" {item.get('key')}: {item.get('message')}." for item in extra)
    return _refuse(request, from_status(error.status_code, detail))


def _fault(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    if isinstance(error, (RecursionError, UnicodeDecodeError)):  # reliability.md D6
        return _refuse(request, from_status(400, "The request's body is not valid JSON."))
    call_id = request.scope["state"]["call_id"]
    log.error("request %s: a fault", call_id, exc_info=error, extra={"call_id": call_id})
    return _refuse(request, Internal())
