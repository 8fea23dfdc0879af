"""Models that providers name themselves: asked for from time to time, kept across restarts.

Of what a provider lists, those that the configuration names are left to it, and the rest is taken
by the patterns of ``[providers.discover]``. A price is the provider's own word, else the one that
the configuration gives for all, else there is none and nobody can call the model. When asking
fails, what was found before stays.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import get_args

import msgspec

from app.clock import Clock
from app.config_types import ModelName
from app.routing.key_pools import KeyPools
from app.routing.lending import Lender
from app.storage.database import Database, Transaction
from plugins.contract import (
    AdapterError,
    Discovering,
    FailureKind,
    ModelEntry,
    Offer,
    Price,
)

log = logging.getLogger("turnpike.routing")
MODELS_MAX = 20_000
ASK_SECONDS_MAX = 60.0
RETRY_SECONDS_MAX = 300.0  # after a failure; or sooner, where it is asked more often anyway
ASKED_AT_ONCE_MAX = 4
_NAMES_LOGGED = 5
_NAME = re.compile(get_args(ModelName)[1].pattern)
_NANO_USD_MAX = 10**15  # a dollar a token: dearer than that is a mistake, not a price
_TOKENS_MAX = 100_000_000
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[ModelEntry]).decode


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that is asked what it serves, and what to make of the answer.

    ``origin`` is the plugin and the address; ``configured`` are the names and the upstream names of
    the models in the configuration. ``price`` is for what the provider says no price of (None:
    there is none); with ``as_billed`` the provider's own bills are charged.
    """

    provider: str
    origin: str
    every_s: float
    price: Price | None = None
    as_billed: bool = False
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    configured: frozenset[str] = frozenset()


class _Known:
    """What one provider said last, and when it is asked again."""

    __slots__ = ("due_ns", "failing", "found_at_ms", "models")

    def __init__(self) -> None:
        self.models: list[ModelEntry] = []
        self.found_at_ms: int | None = None
        self.due_ns = 0
        self.failing: str | None = None


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """How asking one provider goes, for people: what it named last and when, and what failed."""

    models: int
    found_at_ms: int | None
    failing: str | None


class Discoveries:
    """What all providers named, as offers. ``changed`` is called when that is not what it was."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        keys: KeyPools,
        adapters: Lender,
        sources: Sequence[Source],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.changed = changed
        self._database = database
        self._clock = clock
        self._keys = keys
        self._known: dict[str, _Known] = {}
        self._offers: dict[str, list[Offer]] = {}
        self._adapters = adapters
        self._sources: dict[str, Source] = {}
        self.replace(sources)

    def replace(self, sources: Sequence[Source]) -> None:
        """Take over a new configuration; what providers of the same origin named stays."""
        before = {each.provider: each.origin for each in self._sources.values()}
        self._sources = {each.provider: each for each in sources}
        for provider in list(self._known):
            source = self._sources.get(provider)
            if source is None or source.origin != before.get(provider):
                del self._known[provider]
        self._offers = {}
        for provider in self._sources:
            if not isinstance(self._adapters.current.get(provider), Discovering):
                log.warning(
                    "%s: its plugin cannot ask which models there are; list them in the"
                    " configuration",
                    provider,
                )
            self._known.setdefault(provider, _Known()).due_ns = 0

    async def load(self) -> None:
        """Read what was found before this start."""
        for provider, origin, found_at_ms, models in await self._database.read(
            "SELECT provider, origin, found_at_ms, models FROM discovered_models"
        ):
            source = self._sources.get(provider)
            if source is None or source.origin != origin:
                continue
            try:
                self._known[provider].models = _decode(models)
            except msgspec.MsgspecError:
                log.warning("%s: the models that were found before cannot be read", provider)
                continue
            self._known[provider].found_at_ms = found_at_ms
            self._offers.pop(provider, None)

    def offers(self, provider: str) -> list[Offer]:
        """What the provider named, as offers; those without a price too. Cheap, no I/O."""
        offers = self._offers.get(provider)
        if offers is None:
            offers = self._offers[provider] = self._made(provider)
        return offers

    def state(self, provider: str) -> Discovery | None:
        """How asking the provider goes; None where it is not asked."""
        known = self._known.get(provider)
        if known is None:
            return None
        return Discovery(
            models=len(known.models), found_at_ms=known.found_at_ms, failing=known.failing
        )

    async def refresh(self) -> None:
        """Ask the providers whose time has come."""
        now = self._clock.monotonic_ns()
        due = [name for name in self._sources if self._known[name].due_ns <= now]
        turns = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

        async def ask(provider: str) -> bool:
            async with turns:
                return await self._ask(provider)

        if any(await asyncio.gather(*(ask(provider) for provider in due))):
            self.changed()

    async def _ask(self, provider: str) -> bool:
        """Ask one provider; whether it named something else than before."""
        source, known = self._sources.get(provider), self._known.get(provider)
        if source is None or known is None:
            return False  # another configuration came meanwhile
        found = await self._found(source, known)
        if found is None:
            known.due_ns = self._in(min(source.every_s, RETRY_SECONDS_MAX))
            return False
        known.due_ns, known.failing = self._in(source.every_s), None
        if self._known.get(provider) is not known:
            return False
        is_new = found != known.models or known.found_at_ms is None
        known.models, known.found_at_ms = found, self._clock.now_ms()
        if is_new:
            self._offers.pop(provider, None)
            await self._keep(source, known)
        return is_new

    async def _found(self, source: Source, known: _Known) -> list[ModelEntry] | None:
        """What the provider names now; None where it did not say."""
        key = self._keys.pick(source.provider)
        if key is None:
            return None
        try:
            with self._adapters.use(source.provider) as adapter:
                asked: object = adapter
                if not isinstance(asked, Discovering):
                    return None
                async with asyncio.timeout(ASK_SECONDS_MAX):
                    named = await asked.discover(key.secret)
        except AdapterError as error:
            if error.kind is FailureKind.AUTH:
                self._keys.refuse(key)
            elif error.kind is FailureKind.RATE_LIMITED:
                self._keys.cool(key, error.retry_after_s)
            self._failed(source, known, f"{error.kind}: {error.message}", error.detail)
        except TimeoutError:
            self._failed(source, known, f"no answer within {ASK_SECONDS_MAX:.0f} s")
        except Exception as error:  # noqa: BLE001 (a plugin may raise anything)
            self._failed(source, known, f"the plugin failed: {type(error).__name__}", fault=error)
        else:
            return _sound(source.provider, named)
        return None

    def _failed(
        self,
        source: Source,
        known: _Known,
        why: str,
        detail: str = "",
        fault: Exception | None = None,
    ) -> None:
        """Said once until it is another reason: it may fail for days. ``detail`` is for the log."""
        if known.failing != why:
            known.failing = why
            log.warning(
                "%s cannot be asked which models it serves (%s); the %d it named last stay %s",
                source.provider,
                why,
                len(known.models),
                detail,
                exc_info=fault,
            )

    async def _keep(self, source: Source, known: _Known) -> None:
        row = (source.provider, source.origin, known.found_at_ms, _encode(known.models))

        def upsert(tx: Transaction) -> None:
            tx.execute(
                "INSERT INTO discovered_models VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " origin = excluded.origin, found_at_ms = excluded.found_at_ms,"
                " models = excluded.models",
                row,
            )

        await self._database.write(upsert, is_note=True)

    def _made(self, provider: str) -> list[Offer]:
        """The offers for what was found, by the rules of the configuration."""
        source = self._sources.get(provider)
        adapter: object = self._adapters.current.get(provider)
        if source is None or not isinstance(adapter, Discovering):
            return []
        offers = []
        for entry in self._known[provider].models:
            if entry.id in source.configured or entry.upstream_id in source.configured:
                continue
            if (source.only and not _fits(entry.id, source.only)) or _fits(entry.id, source.ignore):
                continue
            priced = msgspec.structs.replace(entry, price=_price(entry.price, source))
            try:
                offers.append(adapter.offer_of(priced))
            except Exception:
                log.exception("%s: the plugin made no offer of the model %s", provider, entry.id)
        return offers

    def _in(self, seconds: float) -> int:
        return self._clock.monotonic_ns() + int(seconds * 1e9)


def model_name(said: str) -> str | None:
    """A provider's name for a model as one of ours: ``llama3:8b`` is ``llama3-8b`` here, since a
    colon comes before a provider or policy. None where it cannot be one."""
    name = said.replace(":", "-")
    return name if _NAME.match(name) else None


def _sound(provider: str, named: Sequence[ModelEntry]) -> list[ModelEntry]:
    """What can be used of a provider's list: each name once, and figures that can be."""
    found: dict[str, ModelEntry] = {}
    left_out = []
    for entry in named[:MODELS_MAX]:
        name = model_name(entry.id)
        if name is None or name in found or not 0 < len(entry.upstream_id) <= 256:
            left_out.append(entry.id)
            continue
        found[name] = msgspec.structs.replace(
            entry,
            id=name,
            price=entry.price if _is_sane(entry.price) else Price(),
            context_length=_tokens(entry.context_length),
            output_tokens_max=_tokens(entry.output_tokens_max),
        )
    left_out += [entry.id for entry in named[MODELS_MAX:]]
    if left_out:
        shown = ", ".join(ascii(name[:64]) for name in left_out[:_NAMES_LOGGED])
        log.warning(
            "%s names %d models that are left out, twice there or not to be called here: %s",
            provider,
            len(left_out),
            shown + (" …" if len(left_out) > _NAMES_LOGGED else ""),
        )
    return list(found.values())


def _price(said: Price, source: Source) -> Price:
    price = said if said != Price() else source.price
    if price is None:
        return Price()
    if source.as_billed and not price.free:
        return msgspec.structs.replace(price, as_billed=True)
    return price


def _is_sane(price: Price) -> bool:
    return all(
        value is None or (type(value) in (bool, int) and 0 <= value <= _NANO_USD_MAX)
        for value in msgspec.structs.astuple(price)
    )


def _tokens(count: int | None) -> int | None:
    return count if count is not None and 0 < count <= _TOKENS_MAX else None


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
