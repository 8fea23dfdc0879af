"""The models of this machine: their files, whether they can be loaded, and whether they fit."""

import base64
import hashlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import distribution, packages_distributions

import msgspec

from app.config import Config, LocalModel
from app.config_faults import Steps, shown
from app.doctor.finding import Commands, Finding, Teller, gib
from app.errors import ConfigError
from app.parts import local_runtime
from local_runtime.engines.torch_tasks.serving import serves
from local_runtime.lifecycle.memory import available_bytes, budget_bytes, machine_bytes
from local_runtime.lifecycle.states import ModelState
from local_runtime.store.blobs import StoreError
from local_runtime.store.catalog import Store
from local_runtime.store.sources import SourceError, file_of

_A_CROWD = 2
_tell = Teller("models")


def check_models(
    config: Config,
    commands: Commands,
    *,
    running: bool = False,
    deep: bool = False,
    tell: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
    in_the_file: Callable[[Steps], Steps] = tuple,
) -> list[Finding]:
    """Each configured model; ``deep``: with the hashes of all files that have
    known ones.

    Where a server is ``running``, its models have their memory already. ``tell`` gets the bytes of
    the store that are read and to be read. ``in_the_file``: see ``app.config_survey.Survey``.
    """
    models = config.local_models()
    if not models:
        return [_tell.ok("models.none", "none are configured on this machine")]
    found = []
    needs: dict[str, int] = {}
    for at, model in enumerate(models):
        steps = in_the_file(("local", "models", at))
        setting = shown(steps) if config.local.models else None
        found.append(_check(config, model, setting, commands, needs, running=running))
    found += [*_of_memory(config), *_together(config, needs, running=running)]
    if deep:
        found += [*_of_packages(models), *_of_store(config, commands, tell)]
    return found


def _of_memory(config: Config) -> list[Finding]:
    """What models may have according to the file, against what the machine has."""
    asked, there = config.local.memory_bytes_max, machine_bytes()
    if asked is None or asked <= there:
        return []
    text = (
        f"local.memory_bytes_max lets models have {gib(asked)}, and this machine, or its control"
        f" group, has {gib(there)}: the kernel would end engines when that is used up"
    )
    fix = "Lower local.memory_bytes_max, or remove it: then it is what is free at the start"
    return [_tell.warning("models.memory", text, fix, path="local.memory_bytes_max")]


def is_llama(model: LocalModel) -> bool:
    """Whether it runs on llama.cpp."""
    if model.source.startswith("fake:") or serves(model.source, model.engine):
        return False
    return model.engine in {"auto", "llama"}


def _together(config: Config, needs: dict[str, int], *, running: bool) -> list[Finding]:
    """Whether all that are loaded at the start can be in memory at once."""
    wanted = sum(needs[model.id] for model in config.local_models() if model.id in needs)
    most = _bytes_max(config, running=running) or budget_bytes(available_bytes())
    if len(needs) < _A_CROWD or wanted <= most:
        return []
    text = (
        f"the models that are loaded at the start need about {gib(wanted)} together, and may have"
        f" {gib(most)}: those that do not fit are loaded when they are called, and take turns"
    )
    fix = "Give some of them preload = false, a smaller context_length, or the machine more memory"
    return [_tell.warning("models.crowded", text, fix)]


def _bytes_max(config: Config, *, running: bool) -> int | None:
    """What models may have; None: what is free now. A server's models have theirs already."""
    if running and config.local.memory_bytes_max is None:
        return budget_bytes(machine_bytes())
    return config.local.memory_bytes_max


def _check(
    config: Config,
    model: LocalModel,
    setting: str | None,
    commands: Commands,
    needs: dict[str, int],
    *,
    running: bool,
) -> Finding:
    """``needs`` is filled: what a model takes that fits by itself and is loaded at the start."""
    most_bytes = _bytes_max(config, running=running)
    local = msgspec.structs.replace(config.local, models=[model], memory_bytes_max=most_bytes)
    try:
        runtime, _ = local_runtime(msgspec.structs.replace(config, local=local), serving=True)
    except ConfigError as error:
        fix = f"Put the file there, or correct {setting or 'the model'} in the configuration"
        if model.source.startswith("package:"):
            first = "use the starter edition" if getattr(sys, "frozen", False) else "make setup"
            fix = f"{first}, or correct {setting or 'the model'} in the configuration"
        return _tell.problem("model.unusable", error.message, fix, path=setting)
    status = runtime.status()[0]
    if status.state == ModelState.ABSENT:
        return _absent(model, status.error or "", setting, commands)
    most = runtime.room.bytes_max
    if status.needs_bytes > most:
        text = f"{model.id} needs about {gib(status.needs_bytes)}, and models may have {gib(most)}"
        fix = (
            f"Give {setting or 'it'} a smaller context_length or another cache_type, use a smaller"
            " quantisation, or free memory (local.memory_bytes_max)"
        )
        return _tell.problem("model.too_large", text, fix, path=setting)
    if model.preload:
        needs[model.id] = status.needs_bytes
    text = f"{model.id} is here and its header is right; it needs about {gib(status.needs_bytes)}"
    return _tell.ok("model.ok", text)


def _absent(model: LocalModel, why: str, setting: str | None, commands: Commands) -> Finding:
    if model.pull:
        text = f"{model.id} is not here yet; the server pulls it when it starts"
        return _tell.warning("model.absent", text, commands.turnpike("serve"), path=setting)
    if model.source.startswith("hf:"):
        fix = commands.turnpike("models", "pull", model.source)
    else:
        name = model.source.removeprefix("store:")
        fix = commands.turnpike("models", "import", "FILE.gguf", "--name", name)
    return _tell.warning("model.absent", f"{model.id}: {why}", fix, path=setting)


def _of_packages(models: Sequence[LocalModel]) -> Iterator[Finding]:
    """Weights that came as an installed package, against the hashes that it was installed with."""
    for model in models:
        known = packaged_hash(model.source)
        if known is None:
            continue
        try:
            path = file_of(model.source)
        except SourceError:
            continue  # told already
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != known:
                text = f"{model.id}: {path} is not what its package was installed with"
                yield _tell.problem(
                    "model.damaged", text, "Remove .venv and run: make setup", path=str(path)
                )


def packaged_hash(source: str) -> str | None:
    """The SHA-256 that the package of a ``package:`` source was installed with, in hexadecimal
    digits; None where it is of another kind, or where nobody knows.
    """
    scheme, _, wanted = source.partition(":")
    if scheme != "package":
        return None
    for name in packages_distributions().get(wanted.partition("/")[0], []):
        for file in distribution(name).files or []:
            if file.as_posix() == wanted and file.hash is not None and file.hash.mode == "sha256":
                padded = file.hash.value + "=" * (-len(file.hash.value) % 4)
                return base64.urlsafe_b64decode(padded).hex()
    return None


def _of_store(
    config: Config, commands: Commands, tell: Callable[[str, int, int], None]
) -> list[Finding]:
    """Every file of the store, hashed anew."""
    folder = config.models_folder()
    if not folder.is_dir():
        return []
    found, count = [], 0
    try:
        store = Store(folder)
        every = list(store.every())
        done, total = 0, sum(file.bytes for each in every for file in each.files)
        for manifest in every:
            for file in manifest.files:
                count += 1
                before, name = done, f"reading {file.name}"

                def read(bytes_done: int, before: int = before, name: str = name) -> None:
                    tell(name, before + bytes_done, total)

                done += file.bytes
                if not _is_right(store, file.sha256, read):
                    again = manifest.source or str(manifest.name)
                    fix = (
                        f"{commands.turnpike('models', 'rm', str(manifest.name))}; then"
                        f" {commands.turnpike('models', 'pull', again)}"
                    )
                    text = f"{manifest.name}: {file.name} is not what was pulled or imported"
                    found.append(_tell.problem("model.damaged", text, fix, path=str(folder)))
    except (StoreError, OSError) as error:
        text = f"the store {shlex.quote(str(folder))} cannot be read: {error}"
        fix = f"chmod -R u+rwX {shlex.quote(str(folder))}"
        return [*found, _tell.problem("models.store", text, fix, path=str(folder))]
    if not found and count:
        found.append(_tell.ok("models.store", f"all {count} files of the store are what they were"))
    return found


def _is_right(store: Store, sha256: str, read: Callable[[int], None]) -> bool:
    try:
        return store.blobs.digest_of(sha256, read) == sha256
    except OSError:
        return False
