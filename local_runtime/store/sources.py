"""Where a model's file is: ``file:PATH``, ``package:NAME/FILE``, ``store:NAME[:VARIANT]``,
``hf:ORG/REPO[:QUANT][@REVISION]`` (in the store, where a pull has put it), or ``fake:OPTIONS`` for
none. Nothing here asks the network.
"""

import importlib.util
import sys
from pathlib import Path

import msgspec

from local_runtime.engines.torch_tasks.folder import weights_in
from local_runtime.store.blobs import StoreError
from local_runtime.store.catalog import Manifest, NotInStore, Store
from local_runtime.store.companions import check_projector
from local_runtime.store.gguf import GgufError, read_header
from local_runtime.store.names import (
    HubName,
    NameRefused,
    StoreName,
    parse_hub,
    parse_store,
    quantisation_of,
)

IN_STORE = ("store:", "hf:")


class SourceError(Exception):
    """The source names nothing that can be used; the text says what to do about it."""


class SourceAbsent(SourceError):
    """The source is right, and not here yet. ``hub`` names what a pull would bring."""

    def __init__(self, message: str, hub: HubName | None) -> None:
        super().__init__(message)
        self.hub = hub


class ModelFiles(msgspec.Struct, frozen=True):
    """A model's first or only file, and the one with which it sees pictures."""

    path: Path
    projector: Path | None = None


def find(source: str, models_folder: Path) -> ModelFiles:
    """The files of any source but ``fake:``. Raises SourceError, of which SourceAbsent."""
    if not source.startswith(IN_STORE):
        return ModelFiles(file_of(source))
    try:
        hub = parse_hub(source) if source.startswith("hf:") else None
        name = parse_store(source) if hub is None else StoreName(hub.repo, _variant(hub))
        manifest = _manifest(source, name, hub, models_folder)
        store = Store(models_folder)
        path, projector = store.weights_path(manifest), store.projector_path(manifest)
    except (NameRefused, StoreError) as error:
        raise SourceError(str(error)) from error
    return ModelFiles(path, projector if projector is not None and _sees(projector) else None)


def file_of(source: str) -> Path:
    """The file that a ``file:`` or ``package:`` source names. Raises SourceError.

    A package is found without being imported, so its code does not run.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "file":
        path = Path(rest).expanduser()
        found = _file_or_weights(path)
        if found is None:
            raise SourceError(f"there is no file {path}, and no folder with a model of safetensors")
        return found
    if scheme == "package":
        return _file_in_package(rest)
    raise SourceError(f"{source!r} is neither file:PATH nor package:NAME/FILE")


def _manifest(source: str, name: StoreName, hub: HubName | None, folder: Path) -> Manifest:
    """Raises SourceAbsent, StoreError."""
    found: Manifest | None = None
    if folder.is_dir():
        try:
            found = Store(folder).get(name)
        except NotInStore:
            found = None
    if found is not None and hub is not None and hub.revision is not None:
        at = {found.revision, found.source.partition("@")[2]}
        found = found if hub.revision in at else None
    if found is not None:
        return found
    if hub is None:
        raise SourceAbsent(
            f"{name} is not in the store {folder}; `turnpike models list --store` shows what is,"
            " `turnpike models pull` and `turnpike models import` bring more",
            None,
        )
    raise SourceAbsent(f"{source} is not on this machine; `turnpike models pull {source}`", hub)


def _variant(hub: HubName) -> str | None:
    """What a quantisation is called in the store, however its file is named."""
    return None if hub.quant is None else quantisation_of(hub.quant) or hub.quant


def _sees(projector: Path) -> bool:
    """Whether the file is a projector for pictures; there are others, for sound."""
    try:
        check_projector(read_header(projector))
    except (GgufError, OSError):
        return False
    return True


def _file_or_weights(path: Path) -> Path | None:
    """The file itself, or the first of the weights in the folder of a model."""
    return path if path.is_file() else weights_in(path)


def _file_in_package(rest: str) -> Path:
    name, _, file = rest.partition("/")
    if not name.isidentifier() or not file or ".." in Path(file).parts or Path(file).is_absolute():
        raise SourceError(f"package:{rest} is not of the form package:NAME/FILE")
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        if getattr(sys, "frozen", False):
            raise SourceError(
                f"the package {name} is not in this edition of Turnpike: the starter edition has"
                " it. Or name a model of your own under [[local.models]], such as"
                ' source = "file:/models/model.gguf", or a provider under [[providers]]'
            )
        raise SourceError(f"the Python package {name} is not installed; `make setup` installs it")
    for place in places:
        if (path := _file_or_weights(Path(place) / file)) is not None:
            return path
    raise SourceError(f"the Python package {name} holds no file {file}")
