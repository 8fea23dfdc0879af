"""The façade: the configured models, each with its supervisor. Load, unload, status."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from local_runtime.engines.contract import EngineSpec
from local_runtime.engines.fake import SUPPORTED_PARAMS as FAKE_PARAMS
from local_runtime.engines.fake import context_length_of, parse_options
from local_runtime.lifecycle.states import ModelState
from local_runtime.lifecycle.supervisor import Supervisor
from local_runtime.placement.child import ChildHost
from local_runtime.placement.contract import Host
from local_runtime.placement.inline import InlineHost
from local_runtime.store.gguf import GgufError, read_header
from local_runtime.store.sources import SourceError, file_of

SEQUENCES_MAX = 8
CONTEXT_DEFAULT_MAX = 8192


class RuntimeConfigError(Exception):
    """A local model cannot be served as configured; the text names it and says what to do."""


class LocalModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One local model as configured. ``preload``: load it at start, not at its first call."""

    id: str
    source: str
    engine: str = "llama"
    context_length: int | None = None
    threads: int | None = None
    preload: bool = True


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model now, for ``/readyz`` and metrics. Times are sums since this process started."""

    model: str
    state: ModelState
    engine: str
    placement: str
    progress: float
    error: str | None
    preload: bool
    calls_running: int
    calls_waiting: int
    crashes: int
    busy_ns: int
    unbilled_ns: int
    threads: int | None
    pid: int | None


class LocalModel:
    """A model that can be served: what is known of it without loading, and its supervisor."""

    def __init__(
        self,
        spec: LocalModelSpec,
        engine_spec: EngineSpec,
        context_length: int,
        supported_params: frozenset[str],
        supervisor: Supervisor,
    ) -> None:
        self.spec = spec
        self.engine_spec = engine_spec
        self.context_length = context_length
        self.supported_params = supported_params
        self.supervisor = supervisor
        self.calls_open = 0
        self.call_seconds_mean = 1.0

    @property
    def calls_running(self) -> int:
        """Calls that have a place in the batch, as far as can be told from here."""
        return min(self.calls_open, self.engine_spec.sequences_max)


class LocalRuntime:
    """All local models of one process."""

    def __init__(
        self,
        models: Sequence[LocalModelSpec],
        *,
        placement: str = "child",
        command: Sequence[str] | None = None,
        queue_length_max: int = 256,
    ) -> None:
        """Check every model's file, without loading any. Raises RuntimeConfigError.

        ``command`` starts a worker child. ``queue_length_max`` bounds, per model, the calls that
        wait for a place.
        """
        if placement == "ray":
            raise RuntimeConfigError(
                'local.placement = "ray" needs the extra `ray` (pip install "turnpike[ray]") and '
                'is not available in this version; use "child" or "inline".'
            )
        if placement not in {"child", "inline"}:
            raise RuntimeConfigError(f"local.placement = {placement!r} is unknown.")
        self.placement = placement
        self.queue_length_max = queue_length_max
        self._command = command
        self.models = {spec.id: self._model(spec) for spec in models}

    def _model(self, spec: LocalModelSpec) -> LocalModel:
        if spec.source.startswith("fake:"):
            engine_spec = _fake_spec(spec)
            context_length, params = context_length_of(engine_spec), FAKE_PARAMS
        elif spec.engine == "llama":
            # Named only here, and this file touches nothing native.
            from local_runtime.engines.llama.request import SUPPORTED_PARAMS

            engine_spec, context_length = _llama_spec(spec)
            params = SUPPORTED_PARAMS
        else:
            raise RuntimeConfigError(
                f"{spec.id}: the engine {spec.engine!r} cannot serve {spec.source!r}."
            )

        def make_host() -> Host:
            if self.placement == "inline":
                return InlineHost(engine_spec)
            return ChildHost(engine_spec, self._command)

        supervisor = Supervisor(spec.id, make_host)
        return LocalModel(spec, engine_spec, context_length, params, supervisor)

    def start(self) -> None:
        """Begin to load what is to be preloaded; returns at once. Needs a running event loop."""
        for model in self.models.values():
            if model.spec.preload:
                model.supervisor.begin_loading()

    async def load(
        self, model_id: str, progress: Callable[[float], None] = lambda _fraction: None
    ) -> None:
        """Load one model and wait; ``progress`` gets fractions from 0 to 1.

        Raises KeyError for an unknown model, AdapterError when it cannot be loaded.
        """
        await self.models[model_id].supervisor.load(progress)

    async def unload(self, model_id: str) -> None:
        """Free one model's memory once its running calls have ended. Raises KeyError."""
        await self.models[model_id].supervisor.unload()

    def status(self) -> list[ModelStatus]:
        """Every model, in the order of the configuration."""
        return [self._status(model) for model in self.models.values()]

    def _status(self, model: LocalModel) -> ModelStatus:
        supervisor = model.supervisor
        stats = supervisor.stats
        return ModelStatus(
            model=model.spec.id,
            state=supervisor.state,
            engine=model.engine_spec.engine,
            placement=self.placement,
            progress=supervisor.progress,
            error=supervisor.error,
            preload=model.spec.preload,
            calls_running=model.calls_running,
            calls_waiting=model.calls_open - model.calls_running,
            crashes=supervisor.restarts.total,
            busy_ns=stats.busy_ns,
            unbilled_ns=stats.unbilled_ns,
            threads=supervisor.info.threads if supervisor.info else None,
            pid=stats.pid,
        )

    async def close(self) -> None:
        """End every engine."""
        for model in self.models.values():
            await model.supervisor.close()


def _fake_spec(spec: LocalModelSpec) -> EngineSpec:
    try:
        options = parse_options(spec.source.removeprefix("fake:"))
    except ValueError as error:
        raise RuntimeConfigError(f"{spec.id}: source: {error}") from error
    return EngineSpec(
        engine="fake",
        options=options,
        context_length=spec.context_length,
        sequences_max=SEQUENCES_MAX,
    )


def _llama_spec(spec: LocalModelSpec) -> tuple[EngineSpec, int]:
    """The engine's order, and the context length that will result from it."""
    try:
        path = file_of(spec.source)
        header = read_header(path)
    except (SourceError, GgufError, OSError) as error:
        raise RuntimeConfigError(
            f"{spec.id}: {error}. Correct `source` of this model in the configuration, or remove "
            "the model."
        ) from error
    if header.chat_template is None:
        raise RuntimeConfigError(
            f"{spec.id}: {path.name} has no chat template, so it cannot hold conversations. "
            "Use the instruct version of the model."
        )
    trained = header.context_length or CONTEXT_DEFAULT_MAX
    if spec.context_length is not None and spec.context_length > trained:
        raise RuntimeConfigError(
            f"{spec.id}: context_length = {spec.context_length}, but the model was trained for "
            f"{trained} tokens. Lower it."
        )
    context_length = spec.context_length or min(trained, CONTEXT_DEFAULT_MAX)
    engine_spec = EngineSpec(
        engine="llama",
        path=str(Path(path).resolve()),
        context_length=context_length,
        threads=spec.threads,
        sequences_max=SEQUENCES_MAX,
    )
    return engine_spec, context_length
