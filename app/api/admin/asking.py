"""Reads what an admin request asks for: strictly, and within bounds."""

from typing import Any, TypeVar

import msgspec
from litestar import Request

from app.api.body import decode, read_json
from app.api.services import Services
from app.errors import InvalidRequest

T = TypeVar("T")
BODY_BYTES_MAX = 64 * 1024


def services_of(request: Request[Any, Any, Any]) -> Services:
    """The rooms' front doors, as ``app.boot`` built them."""
    services: Services = request.app.state.services
    return services


async def body_of(request: Request[Any, Any, Any], kind: type[T]) -> T:
    """The JSON body as a ``kind``; no key may be there twice."""
    body = await read_json(request.scope, request.receive, BODY_BYTES_MAX)
    return decode(body, msgspec.json.Decoder(kind), [f'"{name}"'.encode() for name in _names(kind)])


def query_of(request: Request[Any, Any, Any], kind: type[T]) -> T:
    """The query as a ``kind``; unknown and repeated parameters are refused."""
    known = _names(kind)
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise InvalidRequest(
                f"Unknown parameter: {name[:64]!a}; known here: {', '.join(known)}.",
                param=name[:64],
                code="unknown_parameter",
            )
        if name in found:
            raise InvalidRequest(f"The parameter {name!r} appears twice.", param=name)
        found[name] = value
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `")
        param = where.removesuffix("`").removeprefix("$.") or None
        about = f" for {param!r}" if param else ""
        raise InvalidRequest(
            f"Invalid query{about}: {text[0].lower()}{text[1:200]}.", param=param
        ) from error


def _names(kind: type[Any]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]
