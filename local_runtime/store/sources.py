"""Where a model's file is: ``file:PATH``, ``package:NAME/FILE``, or ``fake:OPTIONS`` for none."""

import importlib.util
from pathlib import Path


class SourceError(Exception):
    """The source names nothing that can be used; the text says what to do about it."""


def file_of(source: str) -> Path:
    """The file that a ``file:`` or ``package:`` source names. Raises SourceError.

    A package is found without being imported, so its code does not run.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "file":
        path = Path(rest).expanduser()
        if not path.is_file():
            raise SourceError(f"there is no file {path}")
        return path
    if scheme == "package":
        return _file_in_package(rest)
    raise SourceError(f"{source!r} is neither file:PATH nor package:NAME/FILE")


def _file_in_package(rest: str) -> Path:
    name, _, file = rest.partition("/")
    if not name.isidentifier() or not file or ".." in Path(file).parts or Path(file).is_absolute():
        raise SourceError(f"package:{rest} is not of the form package:NAME/FILE")
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise SourceError(f"the Python package {name} is not installed; `make setup` installs it")
    for place in places:
        if (path := Path(place) / file).is_file():
            return path
    raise SourceError(f"the Python package {name} holds no file {file}")
