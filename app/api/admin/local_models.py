"""``/api/local/models``: what this machine's models do, and telling them what to do."""

from typing import Any

from litestar import Request, get, post

from app.api.admin.asking import body_of
from app.api.admin.local_wire import LocalModelLine, LocalModelList, LocalModels, NamedModel


def _models_of(request: Request[Any, Any, Any]) -> LocalModels:
    models: LocalModels = request.app.state.local
    return models


def _line(models: LocalModels, name: str) -> LocalModelLine:
    return next(line for line in models.every().data if line.model == name)


@get("/local/models")
async def list_local_models(request: Request[Any, Any, Any]) -> LocalModelList:
    """Every model with its state, its progress, the memory it holds and the calls it has."""
    return _models_of(request).every()


@post("/local/models/load", status_code=202)
async def load_local_model(request: Request[Any, Any, Any]) -> LocalModelLine:
    """Begin to load a model; its state and its progress are to be asked for."""
    models, named = _models_of(request), await body_of(request, NamedModel)
    models.load(named.model)
    return _line(models, named.model)


@post("/local/models/unload", status_code=202)
async def unload_local_model(request: Request[Any, Any, Any]) -> LocalModelLine:
    """Have a model leave the memory, once the calls that run on it have ended."""
    models, named = _models_of(request), await body_of(request, NamedModel)
    models.unload(named.model)
    return _line(models, named.model)
