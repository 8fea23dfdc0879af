"""What handlers work with: built once by ``app.boot``, found at ``request.app.state.services``."""

from dataclasses import dataclass

from app.api.repeats import Repeats
from app.billing.budgets import SpendingLimits
from app.billing.credit_book import CreditBook
from app.billing.events import EventLog
from app.billing.invoices import Invoices
from app.billing.month_closing import MonthClosing
from app.billing.overview import Overviews
from app.billing.own_costs import OwnCosts
from app.billing.payers import Payers
from app.billing.spent import Spending
from app.billing.switches import Switches
from app.billing.tiers import Tiers
from app.config import Config
from app.identity.confinement import Confinements
from app.identity.groups import GroupStore
from app.identity.keys import KeyRing, KeyStore
from app.identity.members import MemberStore
from app.identity.orgs import OrgStore
from app.identity.preferred import PreferredOrders
from app.identity.provider_keys import ProviderKeys
from app.identity.users import UserStore
from app.job_runs import JobRuns
from app.ledger.store import LedgerStore
from app.ledger.time import LedgerClock
from app.metering.usage import UsageLog
from app.routing.catalog import Catalog
from app.routing.discovery import Discoveries
from app.routing.health import Health
from app.routing.key_pools import KeyPools
from app.routing.probe_results import ProbeResults
from app.storage.backup_folder import BackupRecord
from app.storage.disk import DiskWatch


@dataclass(slots=True)
class Services:
    """The rooms' front doors. ``config`` is replaced by a reload; nothing else is."""

    config: Config
    clock: LedgerClock
    disk: DiskWatch
    backups: BackupRecord
    job_runs: JobRuns
    users: UserStore
    keys: KeyStore
    keyring: KeyRing
    orgs: OrgStore
    members: MemberStore
    groups: GroupStore
    switches: Switches
    limits: SpendingLimits
    tiers: Tiers
    ledger: LedgerStore
    usage: UsageLog
    costs: OwnCosts
    payers: Payers
    overviews: Overviews
    spending: Spending
    credit_book: CreditBook
    events: EventLog
    invoices: Invoices
    closing: MonthClosing
    repeats: Repeats
    health: Health
    catalog: Catalog
    pools: KeyPools
    confinements: Confinements
    preferred: PreferredOrders
    provider_keys: ProviderKeys
    discoveries: Discoveries
    probe_results: ProbeResults
