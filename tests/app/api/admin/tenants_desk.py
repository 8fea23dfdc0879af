"""Two orgs and all who could ask about them, over a real appliance."""

from dataclasses import dataclass
from typing import Any

import httpx

from app.identity.groups import ResourceGroup
from app.identity.orgs import Org
from tests.app.api.admin.conftest import Desk


@dataclass
class Tenants:
    """Org acme (ann runs it, bob belongs to it) and org other (olga); zoe belongs nowhere, root is
    an owner of the appliance. ``keys`` are by name."""

    desk: Desk
    keys: dict[str, str]
    acme: Org
    other: Org
    group: ResourceGroup

    async def ask(
        self, who: str, method: str, path: str, body: object = None, **query: str
    ) -> httpx.Response:
        """A request as somebody: a name, "operator" or "anonymous"."""
        bearer = self.desk.appliance.admin_token if who == "operator" else self.keys.get(who, "")
        return await self.desk.http.request(
            method,
            path,
            json=body,
            params=query,
            headers={"authorization": f"Bearer {bearer}" if bearer else ""},
        )

    async def answer(
        self, who: str, method: str, path: str, body: object = None, **query: str
    ) -> Any:
        """The body of a request that succeeds."""
        response = await self.ask(who, method, path, body, **query)
        assert response.is_success, response.text
        return response.json()

    async def refused(
        self, who: str, method: str, path: str, body: object = None, **query: str
    ) -> tuple[int, str, str]:
        """Status, code and message of one that does not."""
        response = await self.ask(who, method, path, body, **query)
        assert not response.is_success, response.text
        error = response.json()["error"]
        return response.status_code, error["code"], error["message"]

    async def credit(self, payer_id: str) -> int:
        """What the payer has been granted for the month, as the journal has it."""
        rows = await self.desk.appliance.services.orgs._database.read(
            "SELECT coalesce(sum(granted_nano_usd), 0) FROM grants WHERE payer_id = ?", (payer_id,)
        )
        granted: int = rows[0][0]
        return granted


async def settle_in(desk: Desk) -> Tenants:
    """Make them all."""
    services = desk.appliance.services
    keys = {name: await desk.member(name) for name in ("ann", "bob", "olga", "zoe")}
    keys["root"] = await desk.member("root", role="owner")
    acme = await services.orgs.add("acme", "team", "ann")
    other = await services.orgs.add("other", "team", "olga")
    await services.members.add(acme.id, "bob")
    group = await services.groups.add(acme.id, "research")
    return Tenants(desk, keys, await services.orgs.named("acme"), other, group)
