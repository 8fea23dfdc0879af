"""What finding a call's caller and offers costs, with few and with many of both.

``python -m tests.bench.routing``: CPU microseconds per call for the key check and the plan, in one
process, over a real database of keys. The figure of the most is held against that of the fewest.
"""

import asyncio
import json
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from app.clock import SystemClock
from app.identity import key_format
from app.identity.keys import KeyRing, KeyStore
from app.identity.users import UserStore
from app.ids import new_key_id
from app.routing.asked import Asked
from app.routing.catalog import Snapshot
from app.routing.health import Health
from app.routing.key_pools import KeyPools, ProviderKey
from app.routing.plan import Rules, plan
from app.storage.database import Transaction
from app.storage.sqlite import SqliteDatabase
from plugins.contract import Offer, Price

SIZES = ((10, 10), (1_000, 10_000), (10_000, 100_000))  # offers, keys
PER_MODEL = 5
CALLS = 200_000
ROUNDS = 5


def catalog(offers: int) -> Snapshot:
    """So many offers, five providers to a model."""
    models: dict[str, tuple[Offer, ...]] = {}
    for number in range(offers // PER_MODEL):
        name = f"org-{number % 97}/model-{number}"
        models[name] = tuple(
            Offer(
                model=name,
                provider=f"provider-{each}",
                upstream_id="m",
                price=Price(input=10**8, output=10**9 + each),
            )
            for each in range(PER_MODEL)
        )
    return Snapshot(MappingProxyType(models), 0)


async def add_keys(database: SqliteDatabase, count: int) -> list[str]:
    """So many keys of one user, in one transaction each thousand."""
    texts = []
    rows = []
    user = await database.read("SELECT id FROM users LIMIT 1")
    for _ in range(count):
        text, parts = key_format.new_key()
        texts.append(text)
        digest = key_format.digest(parts.secret)
        rows.append((new_key_id(), user[0][0], "bench", parts.prefix, digest, 1, 2**62))
    for start in range(0, count, 1000):

        def insert(tx: Transaction, lot: int = start) -> None:
            for row in rows[lot : lot + 1000]:
                tx.execute(
                    "INSERT INTO api_keys (id, user_id, name, prefix, secret_hash, created_at_ms,"
                    " last_used_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )

        await database.write(insert)
    return texts


async def cpu_us(offers: int, keys: int, folder: Path) -> tuple[float, float]:
    """Microseconds of CPU per call: of the key check, and of the plan. The best of the rounds."""
    clock = SystemClock()
    database = SqliteDatabase(folder / f"{offers}.db", clock)
    await database.open()
    try:
        users = UserStore(database, clock, ["free"])
        await users.add("bench", "free")
        bearers = await add_keys(database, keys)
        ring = KeyRing(database, KeyStore(database, clock), users, clock)
        for bearer in bearers:
            await ring.authenticate(bearer)
        checks = min(_check_us(ring, random.Random(each), bearers) for each in range(ROUNDS))
        world = catalog(offers)
        plans = min(_plan_us(world, clock, random.Random(each)) for each in range(ROUNDS))
        await ring.close()
        return checks, plans
    finally:
        await database.close()


def _check_us(ring: KeyRing, chance: random.Random, bearers: list[str]) -> float:
    asked = chance.choices(bearers, k=CALLS)
    began = time.process_time()
    for bearer in asked:
        if ring.cached(bearer) is None:
            raise RuntimeError("a key that was checked a moment ago is not remembered")
    return (time.process_time() - began) * 1e6 / CALLS


def _plan_us(world: Snapshot, clock: SystemClock, chance: random.Random) -> float:
    health = Health(clock)
    pools = KeyPools(
        (
            ProviderKey(provider=f"provider-{each}", name="api_key", secret=f"s{each}")
            for each in range(PER_MODEL)
        ),
        clock,
    )
    names = list(world.models)
    for name in names:
        for each in range(PER_MODEL):
            health.measured((f"provider-{each}", name), 100.0, 10.0 + each)
    rules = Rules()
    requests = [Asked(names=(name,)) for name in chance.choices(names, k=CALLS // 4)]
    began = time.process_time()
    for request in requests:
        plan(request, world, health, pools, rules)
    return (time.process_time() - began) * 1e6 / len(requests)


async def main() -> None:
    """One line per size, and the ratios."""
    found = []
    with TemporaryDirectory() as folder:
        for offers, keys in SIZES:
            check, planned = await cpu_us(offers, keys, Path(folder))
            found.append(check + planned)
            line = {
                "offers": offers,
                "keys": keys,
                "key_check_us": round(check, 2),
                "plan_us": round(planned, 2),
                "ratio_to_fewest": round(found[-1] / found[0], 2),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
