"""The façade: the configured models, each with its supervisor. Load, unload, status."""

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import msgspec

from local_runtime.attachments import AdapterSource, AttachmentError, attach
from local_runtime.encoding import SUPPORTED_PARAMS as ENCODER_PARAMS
from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.engines.fake import SUPPORTED_PARAMS as FAKE_PARAMS
from local_runtime.engines.fake import context_length_of as fake_context_length
from local_runtime.engines.fake import parse_options
from local_runtime.engines.llama.sizing import Free, context_length_of
from local_runtime.engines.torch_tasks.config import ConfigRefused
from local_runtime.engines.torch_tasks.serving import order, serves
from local_runtime.kinds import Kind, KindError, encoder_context_length, kind_of
from local_runtime.lifecycle.events import Events, Happening, ModelEvent
from local_runtime.lifecycle.load_times import LoadTimes
from local_runtime.lifecycle.memory import available_bytes, budget_bytes, takeable_bytes
from local_runtime.lifecycle.needs import Needs
from local_runtime.lifecycle.room import Room
from local_runtime.lifecycle.states import ModelState
from local_runtime.lifecycle.supervisor import Supervisor
from local_runtime.memory_guess import guessed_bytes, spare_bytes
from local_runtime.placement.child import ChildHost, child_environment
from local_runtime.placement.contract import Host
from local_runtime.placement.inline import InlineHost
from local_runtime.placement.memory_cap import MemoryCap, Setting, cap_bytes
from local_runtime.placement.runnable import runnable
from local_runtime.status import ModelStatus, status_of, status_without_files
from local_runtime.store.gguf import GgufError, GgufHeader, read_header
from local_runtime.store.sources import SourceError, file_of

SEQUENCES_MAX = 16
ENCODER_TEXTS_MAX = 64
CONTEXT_DEFAULT_MAX = 8192
COLD_WAIT_S_MAX = 120.0
STEP_S_MAX = 120.0


class RuntimeConfigError(Exception):
    """A local model cannot be served as configured; the text names it and says what to do."""


class LocalModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One local model as configured.

    ``preload``: load it at start, if there is room, and not at its first call. ``keep``: it makes
    no room for others and is never unloaded by itself. ``keep_alive_s``: unloaded after so long
    without a call; 0 never, None as the runtime has it. ``process_bytes_max``: what its process may
    take (``placement/memory_cap.py``); None as the runtime has it. ``projector`` is the file with
    which it sees pictures, ``draft`` the small model that guesses ahead, which ``speculation``
    allows; each of the ``adapters`` is served as a model of its own. ``task`` is "auto" or one of
    ``kinds.Kind``.
    """

    id: str
    source: str
    engine: str = "auto"
    task: str = "auto"
    context_length: int | None = None
    threads: int | None = None
    sequences_max: int = SEQUENCES_MAX
    batch_tokens: int | None = None
    cache_type: str = "f16"
    flash_attention: bool | None = None
    gpu_layers: int | None = None
    preload: bool = True
    keep: bool = False
    keep_alive_s: float | None = None
    process_bytes_max: Setting | None = None
    projector: str | None = None
    speculation: bool = True
    draft: str | None = None
    adapters: Sequence[AdapterSource] = ()


class LocalModel:
    """A model that can be served: what is known of it without loading, and its supervisor."""

    def __init__(
        self,
        spec: LocalModelSpec,
        engine_spec: EngineSpec,
        context_length: int,
        supported_params: frozenset[str],
        supervisor: Supervisor,
        kind: Kind = Kind.CHAT,
    ) -> None:
        self.kind = kind
        self.spec = spec
        self.engine_spec = engine_spec
        self.context_length = context_length
        self.supported_params = supported_params
        self.supervisor = supervisor
        self.calls_open = 0
        self.call_seconds_mean = 1.0


class LocalRuntime:
    """All local models of one process."""

    def __init__(
        self,
        models: Sequence[LocalModelSpec],
        *,
        placement: str = "child",
        command: Sequence[str] | None = None,
        queue_length_max: int = 256,
        memory_bytes_max: int | None = None,
        cold_wait_s_max: float = COLD_WAIT_S_MAX,
        keep_alive_s: float = 0.0,
        process_bytes_max: Setting = "auto",
        step_s_max: float = STEP_S_MAX,
    ) -> None:
        """Check every model's file, without loading any. Raises RuntimeConfigError.

        ``command`` starts a worker child. ``queue_length_max`` bounds, per model, the calls that
        wait for a place, ``cold_wait_s_max`` how long they wait for a model to be loaded.
        ``memory_bytes_max`` is what all models together may hold (None: measured now, and again
        whenever one is to be loaded), ``process_bytes_max`` what each child may take. A child whose
        step takes longer than ``step_s_max`` hangs.
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
        self.cold_wait_s_max = cold_wait_s_max
        self._command = command
        self._keep_alive_s = keep_alive_s
        self._step_s_max = step_s_max
        self._process_bytes_max: Setting = process_bytes_max
        self._events = Events()
        self._load_times = LoadTimes()
        if memory_bytes_max is None:
            self.room = Room(budget_bytes(available_bytes()), spare_bytes)
        else:
            self.room = Room(memory_bytes_max, takeable_bytes)
        self.models = {spec.id: self._model(spec) for spec in models}
        self._absent: dict[str, ModelStatus] = {}
        self._adapters = {
            adapter.id: model for model in self.models.values() for adapter in model.spec.adapters
        }
        names = [adapter.id for spec in models for adapter in spec.adapters]
        for name in names:
            if name in self.models or names.count(name) > 1:
                raise RuntimeConfigError(f"{name}: two models or adapters have this id.")

    def _model(self, spec: LocalModelSpec) -> LocalModel:
        if spec.source.startswith("fake:"):
            engine_spec = _fake_spec(spec)
            kind, context_length, params = Kind.CHAT, fake_context_length(engine_spec), FAKE_PARAMS
        elif serves(spec.source, spec.engine):
            try:
                kind, engine_spec, context_length = order(spec)
            except ConfigRefused as error:
                fix = "Correct this model in the configuration, or remove it."
                raise RuntimeConfigError(f"{spec.id}: {error}. {fix}") from error
            params = ENCODER_PARAMS[kind]
        elif spec.engine in {"auto", "llama"}:
            # Named only here, and this file touches nothing native.
            from local_runtime.engines.llama.request import SUPPORTED_PARAMS

            kind, engine_spec, context_length = _llama_spec(spec)
            params = ENCODER_PARAMS.get(kind, SUPPORTED_PARAMS)
            engine_spec = msgspec.structs.replace(engine_spec, memory_bytes_max=self.room.bytes_max)
        else:
            raise RuntimeConfigError(
                f"{spec.id}: the engine {spec.engine!r} cannot serve {spec.source!r}."
            )

        async def make_host() -> Host:
            if self.placement == "inline":
                return InlineHost(await runnable(engine_spec))
            environment = child_environment(dict(os.environ))
            fitting = await runnable(engine_spec, environment, self._command)
            setting = spec.process_bytes_max or self._process_bytes_max
            loads = supervisor.loads

            def ran_out() -> None:
                loads.out_of_memory += 1

            needs = max(supervisor.needs.memory_bytes, supervisor.needs_bytes)
            most = cap_bytes(setting, needs, sees=bool(engine_spec.projector_path))
            cap = MemoryCap(bytes_max=most, on_hit=ran_out)
            return ChildHost(fitting, self._command, step_s_max=self._step_s_max, memory=cap)

        supervisor = Supervisor(
            spec.id,
            make_host,
            self.room,
            needs=self._needs(spec, engine_spec),
            events=self._events,
            load_times=self._load_times,
        )
        return LocalModel(spec, engine_spec, context_length, params, supervisor, kind)

    def _needs(self, spec: LocalModelSpec, engine_spec: EngineSpec) -> Needs:
        keep_alive_s = self._keep_alive_s if spec.keep_alive_s is None else spec.keep_alive_s
        files = (engine_spec.path, engine_spec.projector_path, engine_spec.draft_path)
        paths = [*filter(None, files), *(each.path for each in engine_spec.adapters.values())]
        return Needs(
            memory_bytes=guessed_bytes(engine_spec),
            size_bytes=sum(Path(path).stat().st_size for path in paths),
            keep=spec.keep,
            keep_alive_s=0.0 if spec.keep else keep_alive_s,
        )

    def served(self, name: str) -> tuple[LocalModel, str] | None:
        """What serves a name: a model, and the adapter of it that has the name, or an empty one."""
        model = self.models.get(name)
        if model is not None:
            return model, ""
        base = self._adapters.get(name)
        return None if base is None else (base, name)

    def start(self) -> None:
        """Begin to load what is to be preloaded and fits beside what was named before it; returns
        at once. Needs a running event loop.
        """
        for model in self.models.values():
            if model.spec.preload:
                model.supervisor.begin_loading(may_displace=False)

    def events(self, since: int | None = None) -> AsyncGenerator[ModelEvent, None]:
        """What happens to models from now on, and before it whatever is still known of what came
        after event ``since``."""
        return self._events.since(since)

    async def load(
        self, model_id: str, progress: Callable[[float], None] = lambda _fraction: None
    ) -> None:
        """Load one model and wait; ``progress`` gets fractions from 0 to 1.

        Raises KeyError for an unknown model, AdapterError when it cannot be loaded.
        """
        await self.models[model_id].supervisor.load(progress)

    def begin_loading(self, model_id: str) -> None:
        """A person asks for it: its crashes are forgiven. Returns at once. Raises KeyError."""
        self.models[model_id].supervisor.ask_for()

    def begin_unloading(self, model_id: str) -> None:
        """As ``unload``, without waiting for it. Raises KeyError."""
        self.models[model_id].supervisor.begin_unloading()

    async def unload(self, model_id: str) -> None:
        """Free one model's memory once its running calls have ended. Raises KeyError."""
        await self.models[model_id].supervisor.unload()

    def status(self) -> list[ModelStatus]:
        """Every model, in the order of the configuration; those whose files are missing last."""
        served = [
            status_of(
                model.supervisor,
                engine=model.engine_spec.engine,
                placement=self.placement,
                preload=model.spec.preload,
                calls_open=model.calls_open,
                sequences_max=model.engine_spec.sequences_max,
            )
            for model in self.models.values()
        ]
        return served + list(self._absent.values())

    def add(self, spec: LocalModelSpec) -> None:
        """Serve a model whose files came. Raises RuntimeConfigError."""
        model = self.models[spec.id] = self._model(spec)
        self._absent.pop(spec.id, None)
        self._adapters.update({adapter.id: model for adapter in spec.adapters})
        if spec.preload:
            model.supervisor.begin_loading(may_displace=False)

    def tell_absent(
        self, spec: LocalModelSpec, state: ModelState, progress: float = 0.0, error: str = ""
    ) -> None:
        """A configured model whose files are not here: how far they are, or why they are not."""
        before = self._absent.get(spec.id)
        self._absent[spec.id] = status_without_files(
            spec.id,
            state,
            engine=spec.engine,
            placement=self.placement,
            preload=spec.preload,
            progress=progress,
            error=error or None,
        )
        same = before is not None and before.state is state
        happening = Happening.PROGRESS if same else Happening.STATE
        self._events.tell(happening, spec.id, state, progress, message=error)

    async def close(self) -> None:
        """End every engine."""
        self.room.close()
        for model in self.models.values():
            await model.supervisor.close()


def _fake_spec(spec: LocalModelSpec) -> EngineSpec:
    if spec.task not in {"auto", Kind.CHAT}:
        raise RuntimeConfigError(f"{spec.id}: a fake model only chats; leave task out.")
    if spec.projector is not None or spec.adapters:
        raise RuntimeConfigError(f"{spec.id}: a fake model has no projector and no adapters.")
    try:
        options = parse_options(spec.source.removeprefix("fake:"))
    except ValueError as error:
        raise RuntimeConfigError(f"{spec.id}: source: {error}") from error
    return EngineSpec(
        engine="fake",
        options=options,
        context_length=spec.context_length,
        sequences_max=spec.sequences_max,
    )


def _llama_spec(spec: LocalModelSpec) -> tuple[Kind, EngineSpec, int]:
    """What the model does, the engine's order, and the context length that will result from it."""
    try:
        path = file_of(spec.source)
        header = read_header(path)
        kind = kind_of(header, spec.task)
    except (SourceError, GgufError, KindError, OSError) as error:
        raise RuntimeConfigError(
            f"{spec.id}: {error}. Correct `source` of this model in the configuration, or remove "
            "the model."
        ) from error
    if kind is not Kind.CHAT:
        return kind, *_encoder_spec(spec, header, path)
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
    engine_spec = EngineSpec(
        engine="llama",
        path=str(Path(path).resolve()),
        context_length=spec.context_length,
        threads=spec.threads,
        sequences_max=spec.sequences_max,
        batch_tokens=spec.batch_tokens,
        cache_type=spec.cache_type,
        flash_attention=spec.flash_attention,
        gpu_layers=spec.gpu_layers,
        speculation=spec.speculation,
    )
    try:
        context_length = context_length_of(header, engine_spec, Free(host_bytes=available_bytes()))
    except EngineLoadError as error:
        raise RuntimeConfigError(f"{spec.id}: {error}.") from error
    engine_spec = msgspec.structs.replace(engine_spec, context_length=context_length)
    try:
        engine_spec = attach(engine_spec, header, spec.projector, spec.adapters, spec.draft)
    except AttachmentError as error:
        raise RuntimeConfigError(f"{spec.id}: {error}. Correct it in the configuration.") from error
    return kind, engine_spec, context_length


def _encoder_spec(spec: LocalModelSpec, header: GgufHeader, path: Path) -> tuple[EngineSpec, int]:
    if spec.projector is not None or spec.adapters or spec.draft is not None:
        raise RuntimeConfigError(
            f"{spec.id}: a model that makes vectors or scores takes no projector, no draft and no "
            "adapters."
        )
    trained = header.context_length
    if spec.context_length is not None and trained and spec.context_length > trained:
        raise RuntimeConfigError(
            f"{spec.id}: context_length = {spec.context_length}, but the model was trained for "
            f"{trained} tokens. Lower it."
        )
    context_length = spec.context_length or encoder_context_length(header)
    engine_spec = EngineSpec(
        engine="llama_encoder",
        path=str(path.resolve()),
        options={"task": spec.task},
        context_length=context_length,
        threads=spec.threads,
        sequences_max=ENCODER_TEXTS_MAX,
    )
    return engine_spec, context_length
