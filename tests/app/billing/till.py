"""The real thing without a gateway: database, ledger, stores and the /api surface, at a time that
the test moves by hand; and what it takes to make people, orgs and calls."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from app import parts
from app.api.auth import Authenticator
from app.api.server import Process, build
from app.api.services import Services
from app.billing.standing import AccountStandings
from app.billing.tiers import Tiers
from app.config import parse
from app.gateway.adapters import Adapters
from app.ids import new_call_id
from app.ledger.entries import HoldRequest, Outcome, Settlement, UsageRow
from app.ledger.sqlite import SqliteLedger
from app.metering.segments import Segments
from app.storage.database import Transaction
from app.storage.sqlite import SqliteDatabase

DAY_MS = 86_400_000
START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z, a Sunday
ADMIN = "the-operators-own-token"
CONFIG: dict[str, Any] = {
    "tiers": {
        "free": {"monthly_credit_usd": "0.10"},
        "capped": {
            "monthly_credit_usd": "1",
            "overage": "pay_as_you_go",
            "overage_limit_usd": "3",
        },
    }
}


class HandClock:
    """Stands still until it is moved."""

    suspended = False

    def __init__(self) -> None:
        self.ms = START_MS + 10 * DAY_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ns(self) -> int:
        return self.ms * 1_000_000


class Till:
    """One appliance's money, and HTTP as its operator."""

    def __init__(
        self,
        services: Services,
        database: SqliteDatabase,
        clock: HandClock,
        http: httpx.AsyncClient,
    ) -> None:
        self.services = services
        self.database = database
        self.clock = clock
        self.http = http

    async def user(self, name: str, tier: str = "free", role: str = "member") -> str:
        """A user with a key: the key."""
        await self.services.users.add(name, tier, role)
        return (await self.services.keys.create(name, "laptop"))[1]

    async def sql(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """A statement in the writer's transaction."""

        def unit(tx: Transaction) -> list[tuple[Any, ...]]:
            return tx.execute(sql, params)

        return await self.database.write(unit)

    async def id_of(self, name: str) -> str:
        """The id of a user or an org."""
        return (await self.services.payers.named(name)).id

    async def org(self, name: str, tier: str, **roles: str) -> str:
        """An org whose members have these roles; its id."""
        org_id = f"org_{name.encode().hex():0<32.32}"
        await self.sql(
            "INSERT INTO orgs (id, name, tier, created_at_ms) VALUES (?, ?, ?, 0)",
            *(org_id, name, tier),
        )
        for user, role in roles.items():
            await self.sql(
                "INSERT INTO members (org_id, user_id, role, added_at_ms) VALUES (?, ?, ?, 0)",
                *(org_id, await self.id_of(user), role),
            )
        return org_id

    async def limit(self, scope: str, subject_id: str, amount_nano_usd: int) -> None:
        """Set a spending limit, a moment later than anything before."""
        self.clock.ms += 1
        await self.sql(
            "INSERT OR REPLACE INTO spending_limits VALUES (?, ?, ?, 'test', ?)",
            *(scope, subject_id, amount_nano_usd, self.clock.ms),
        )

    async def key_id(self, key: str) -> str:
        """The id of a key."""
        return (await self.services.keyring.authenticate(key)).key_id

    async def hold(self, key: str, amount: int, **more: Any) -> str:
        """An open call of this key; its id."""
        who = await self.services.keyring.authenticate(key)
        call_id = new_call_id()
        await self.services.ledger.place_hold(
            HoldRequest(
                call_id=call_id,
                user_id=who.user_id,
                key_id=who.key_id,
                offers=(("mock", "acme/tiny"),),
                amount_nano_usd=amount,
                floor_nano_usd=amount,
                admitted_at_ms=self.clock.ms,
                expires_at_ms=self.clock.ms + 3_600_000,
                **more,
            )
        )
        return call_id

    async def usage(self, call_id: str, *, byok: bool = False) -> UsageRow:
        """The row of an open call."""
        ((admitted, user, key, payer, group),) = await self.database.read(
            "SELECT admitted_at_ms, user_id, key_id, payer_id, group_id FROM holds"
            " WHERE call_id = ?",
            (call_id,),
        )
        return UsageRow(
            call_id=call_id,
            at_ms=admitted,
            user_id=user,
            key_id=key,
            payer_id=payer,
            group_id=group,
            model="acme/tiny",
            provider="mock",
            outcome=Outcome.COMPLETED,
            streamed=False,
            attempts=1,
            byok=byok,
        )

    async def call(self, key: str, cost: int, **more: Any) -> Settlement:
        """A whole call of this key."""
        call_id = await self.hold(key, cost, **more)
        usage = await self.usage(call_id, byok=more.get("byok", False))
        return await self.services.ledger.settle_hold(call_id, cost, usage)

    async def ask(
        self, method: str, path: str, key: str = ADMIN, *, json: Any = None, **query: Any
    ) -> httpx.Response:
        """A request with a key; the operator's own token without one."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return await self.http.request(
            method, path, params=query or None, json=json, headers=headers
        )

    async def got(self, path: str, key: str = ADMIN, **query: Any) -> Any:
        """The body of a GET that succeeds."""
        response = await self.ask("GET", path, key, **query)
        assert response.status_code == 200, response.text
        return response.json()

    async def give(self, payer: str, amount_usd: str, reference: str = "p1", **more: Any) -> Any:
        """Purchased credit."""
        body = {"payer": payer, "kind": "purchased", "amount_usd": amount_usd}
        response = await self.ask(
            "POST", "/api/credit", json={**body, "reference": reference, **more}
        )
        assert response.status_code == 201, response.text
        return response.json()


@asynccontextmanager
async def open_till(folder: Path) -> AsyncIterator[Till]:
    """One in a folder; opened twice on the same, it is a restart."""
    config = parse(CONFIG, source="test", data_dir=str(folder))
    clock = HandClock()
    database = SqliteDatabase(folder / "turnpike.db", clock)
    tiers, segments = Tiers(config), Segments(folder, database, clock)
    ledger = SqliteLedger(database, clock, AccountStandings(tiers))
    await database.open()
    disk = parts.disk_of(config)
    services = parts.services_of(
        config, database, ledger, Adapters({}), cast(Any, clock), tiers, segments, disk
    )
    asgi = build(
        server=config.server,
        services=services,
        gateway=cast(Any, SimpleNamespace(tally=None, in_flight=None)),
        authenticator=Authenticator(services.keyring, ADMIN),
        ready_checks=dict,
        process=Process(cast(Any, None)),
        fetch=cast(Any, None),
        videos=cast(Any, None),
        local=cast(Any, None),
    )
    transport = httpx.ASGITransport(cast(Any, asgi))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        try:
            yield Till(services, database, clock, http)
        finally:
            await services.keyring.close()
            await database.close()
