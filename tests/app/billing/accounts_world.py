"""Users, keys, orgs and groups over a real database, and the standings of their callers."""

from dataclasses import dataclass
from pathlib import Path

from app.billing.budgets import SpendingLimits
from app.billing.standing import AccountStandings
from app.billing.switches import Switches
from app.billing.tiers import Tiers
from app.config import Config
from app.identity.groups import GroupStore
from app.identity.keys import KeyInfo, KeyStore
from app.identity.members import MemberStore
from app.identity.orgs import OrgStore
from app.identity.principal import Principal
from app.identity.users import UserStore
from app.ledger.entries import CreditTerms, Standing
from app.ledger.sqlite import SqliteLedger
from app.storage.sqlite import SqliteDatabase

OPERATOR = Principal(user_id="operator", user_name="operator", key_id="operator", owner=True)


class LaterClock:
    """A little later each time it is read."""

    suspended = False

    def __init__(self) -> None:
        self.wall_ms = 1_790_000_000_000

    def now_ms(self) -> int:
        self.wall_ms += 1
        return self.wall_ms

    def monotonic_ns(self) -> int:
        return self.wall_ms * 1_000_000


@dataclass
class World:
    """The stores, and who has which key."""

    database: SqliteDatabase
    users: UserStore
    keys: KeyStore
    orgs: OrgStore
    members: MemberStore
    groups: GroupStore
    switches: Switches
    limits: SpendingLimits
    standings: AccountStandings
    ledger: SqliteLedger
    tiers: Tiers
    clock: LaterClock
    key_of: dict[str, KeyInfo]

    async def user(self, name: str, tier: str = "free", role: str = "member") -> KeyInfo:
        """A user with a key."""
        await self.users.add(name, tier, role)
        self.key_of[name], _ = await self.keys.create(name, "laptop")
        return self.key_of[name]

    async def org(self, name: str, *members: str, tier: str = "team", pays: bool = False) -> str:
        """An org whose admin is the first of its members; its id."""
        org = await self.orgs.add(name, tier, members[0], default_payer=pays)
        for member in members[1:]:
            await self.members.add(org.id, member)
        return org.id

    def principal(self, name: str) -> Principal:
        """Who the user's key acts as."""
        key = self.key_of[name]
        return Principal(user_id=key.user_id, user_name=name, key_id=key.id)

    async def standing(self, name: str, bill_to: str | None = None) -> Standing:
        """As the ledger asks for it: on the writer thread."""
        key = self.key_of[name]
        return await self.database.write(
            lambda tx: self.standings.of_caller(tx.execute, key.user_id, key.id, bill_to)
        )

    async def terms(self, payer_id: str) -> CreditTerms:
        """The same of a payer."""
        return await self.database.write(lambda tx: self.standings.of_payer(tx.execute, payer_id))


async def build(path: Path, config: Config | None = None) -> World:
    """Fresh stores over the database at ``path``, which is left open."""
    clock = LaterClock()
    database = SqliteDatabase(path, clock)
    tiers = Tiers(config or Config())
    standings = AccountStandings(tiers)
    ledger = SqliteLedger(database, clock, standings)
    await database.open()
    return World(
        database=database,
        users=UserStore(database, clock, tiers.for_users()),
        keys=KeyStore(database, clock),
        orgs=OrgStore(database, clock, tiers.for_orgs()),
        members=MemberStore(database, clock),
        groups=GroupStore(database, clock),
        switches=Switches(database, clock),
        limits=SpendingLimits(database, clock, tiers),
        standings=standings,
        ledger=ledger,
        tiers=tiers,
        clock=clock,
        key_of={},
    )
