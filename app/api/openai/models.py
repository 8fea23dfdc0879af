"""``GET /v1/models`` and ``GET /v1/models/{id}``: one route for four kinds of clients.

OpenAI's get ``data``, Hugging Face's the providers in it. Codex asks with ``client_version`` and
wants a list ``models`` of its own making as well: an empty one lets it keep what it knows
(openai/codex issues 35758 and 37122). Whoever sends ``anthropic-version`` gets Anthropic's list.

A long list is made in slices, so that calls go on meanwhile, and kept for a moment.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.answer import send_answer
from app.api.openai.model_objects import (
    Probed,
    anthropic_model,
    anthropic_page,
    is_chat,
    model_object,
)
from app.clock import Clock
from app.errors import InvalidRequest, NotFound
from app.identity.principal import Principal
from app.routing.catalog import Catalog, Snapshot
from app.routing.health import Health

_PREFIX = "/v1/models"
_encode = msgspec.json.Encoder().encode
SLICE_LENGTH = 50  # models: about a millisecond
KEPT_LENGTH_MIN = 500  # a shorter list is made anew for everybody
KEPT_NS = 2 * 10**9
_PAGE_LENGTH, _PAGE_LENGTH_MAX = 20, 1000
_QUERY_FIELDS_MAX = 20


class Models:
    """The routes' handler. ``probed`` is what probes found, where offers are probed."""

    def __init__(
        self, catalog: Catalog, health: Health, clock: Clock, probed: Probed | None = None
    ) -> None:
        self._catalog = catalog
        self._health = health
        self._clock = clock
        self._probed = probed
        self._making = asyncio.Lock()
        self._kept: tuple[Snapshot, int, bytes] | None = None

    async def __call__(
        self, scope: HTTPScope, _receive: Receive, send: Send, _principal: Principal
    ) -> None:
        snapshot = self._catalog.snapshot_at(self._clock.now_ms())
        name = unquote(scope["raw_path"].decode("ascii", "replace"))
        name = name.removeprefix(_PREFIX).strip("/")
        is_anthropic = any(header == b"anthropic-version" for header, _ in scope["headers"])
        query = _query_of(scope)
        if name:
            body = self._one(snapshot, name, is_anthropic=is_anthropic)
        elif is_anthropic:
            body = _encode(_page(snapshot, query))
        else:
            # After `data`, since OpenAI's and the Hub's clients read no further.
            tail = b'],"models":[]}' if "client_version" in query else b"]}"
            body = b'{"object":"list","data":[' + await self._data(snapshot) + tail
        await send_answer(send, 200, body)

    def _one(self, snapshot: Snapshot, name: str, *, is_anthropic: bool) -> bytes:
        offers = snapshot.models.get(name)
        if offers is None:
            raise NotFound(
                f"The model {name!r} does not exist here. GET /v1/models lists those that do.",
                param="model",
                code="model_not_found",
            )
        if is_anthropic:
            return _encode(anthropic_model(name))
        created_s = snapshot.built_at_s
        return _encode(model_object(name, offers, created_s, self._health, self._probed))

    async def _data(self, snapshot: Snapshot) -> bytes:
        """All models, without the brackets around them."""
        if len(snapshot.models) < KEPT_LENGTH_MIN:
            return await self._make(snapshot)
        async with self._making:
            kept = self._kept
            if kept is not None and kept[0] is snapshot and self._clock.monotonic_ns() < kept[1]:
                return kept[2]
            data = await self._make(snapshot)
            self._kept = (snapshot, self._clock.monotonic_ns() + KEPT_NS, data)
            return data

    async def _make(self, snapshot: Snapshot) -> bytes:
        names, slices = list(snapshot.models), []
        for at in range(0, len(names), SLICE_LENGTH):
            if at:
                await asyncio.sleep(0)
            objects = [
                model_object(
                    name, snapshot.models[name], snapshot.built_at_s, self._health, self._probed
                )
                for name in names[at : at + SLICE_LENGTH]
            ]
            slices.append(_encode(objects)[1:-1])
        return b",".join(slices)


def _page(snapshot: Snapshot, query: Mapping[str, str]) -> dict[str, Any]:
    names = [name for name, offers in snapshot.models.items() if is_chat(offers)]
    limit = query.get("limit", str(_PAGE_LENGTH))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _PAGE_LENGTH_MAX):
        raise InvalidRequest(f"'limit' is a number from 1 to {_PAGE_LENGTH_MAX}.", param="limit")
    after_id, before_id = query.get("after_id"), query.get("before_id")
    if after_id and before_id:
        raise InvalidRequest("Give 'after_id' or 'before_id', not both.", param="before_id")
    try:
        return anthropic_page(names, int(limit), after_id or None, before_id or None)
    except ValueError:
        param = "before_id" if before_id else "after_id"
        raise InvalidRequest(f"{param!r} names no model of this list.", param=param) from None


def _query_of(scope: HTTPScope) -> dict[str, str]:
    try:
        return dict(
            parse_qsl(
                scope["query_string"].decode("ascii", "replace"),
                keep_blank_values=True,
                max_num_fields=_QUERY_FIELDS_MAX,
            )
        )
    except ValueError as error:
        raise InvalidRequest("The query has too many parameters.") from error
