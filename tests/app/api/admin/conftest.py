"""A real appliance that is opened as the command line opens it, and a client of its operator."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from app.boot import Appliance, open_appliance
from app.config import parse
from app.ids import new_call_id
from app.ledger.entries import HoldRequest, Outcome, UsageRow

CONFIG: dict[str, Any] = {
    "providers": [
        {
            "id": "mock",
            "plugin": "openai_compatible",
            "base_url": "http://127.0.0.1:9/v1",
            "models": [
                {
                    "id": "acme/tiny",
                    "upstream_id": "m",
                    "price": {"input": "0.20", "output": "0.60"},
                    "context_length": 8192,
                },
                {"id": "acme/gift", "free": True},
            ],
        }
    ],
}


@dataclass
class Desk:
    """The appliance, and HTTP as its operator."""

    appliance: Appliance
    http: httpx.AsyncClient

    async def member(self, name: str, *, role: str = "member") -> str:
        """A user with a key: the key."""
        await self.appliance.services.users.add(name, "free", role)
        return (await self.appliance.services.keys.create(name, "laptop"))[1]

    async def record(
        self,
        key: str,
        *,
        model: str,
        cost_nano_usd: int,
        at_ms: int,
        bill_to: str | None = None,
        outcome: Outcome = Outcome.COMPLETED,
    ) -> str:
        """One settled call of this key, whose user pays as they go from now on: its id."""
        services = self.appliance.services
        who = await services.keyring.authenticate(key)
        await services.users.set_tier(who.user_name, "pro")
        call_id = new_call_id()
        hold = await services.ledger.place_hold(
            HoldRequest(
                call_id=call_id,
                user_id=who.user_id,
                key_id=who.key_id,
                bill_to=bill_to,
                offers=(("mock", model),),
                amount_nano_usd=cost_nano_usd,
                floor_nano_usd=cost_nano_usd,
                admitted_at_ms=at_ms,
                expires_at_ms=at_ms + 60_000,
            )
        )
        row = UsageRow(
            call_id=call_id,
            at_ms=at_ms,
            user_id=who.user_id,
            key_id=who.key_id,
            payer_id=hold.payer_id,
            group_id=hold.group_id,
            model=model,
            provider="mock",
            outcome=outcome,
            streamed=False,
            attempts=1,
            input_tokens=10,
            output_tokens=3,
        )
        await services.ledger.settle_hold(call_id, cost_nano_usd, row)
        return call_id


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    config = parse(CONFIG, source="test", data_dir=str(tmp_path / "data"))
    async with (
        open_appliance(config, serving=False) as appliance,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(cast(Any, appliance.asgi)),
            base_url="http://127.0.0.1",
            headers={"authorization": f"Bearer {appliance.admin_token}"},
        ) as http,
    ):
        yield Desk(appliance, http)
        await appliance.services.keyring.close()
