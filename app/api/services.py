"""What handlers work with: built once by ``app.boot``, found at ``request.app.state.services``."""

from dataclasses import dataclass

from app.clock import Clock
from app.config import Config
from app.identity.keys import KeyRing, KeyStore
from app.identity.users import UserStore
from app.ledger.store import LedgerStore
from app.metering.usage import UsageLog
from app.routing.catalog import Catalog
from app.routing.health import Health


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms' front doors."""

    config: Config
    clock: Clock
    users: UserStore
    keys: KeyStore
    keyring: KeyRing
    ledger: LedgerStore
    usage: UsageLog
    health: Health
    catalog: Catalog
