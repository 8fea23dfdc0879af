"""What tests of pulls share: a played Hub with one repository, and a pull from it in a thread."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from local_runtime.store.catalog import Manifest, Store
from local_runtime.store.hub import HubSettings
from local_runtime.store.names import parse_hub
from local_runtime.store.pull import PullProgress, pull
from tests.local_runtime.store import gguf_files
from tests.upstreams.hub import PlayedHub, Repo

BIG = gguf_files.whole(400_000)  # 1.6 MB
REPO = "acme/tiny-GGUF"
FILES = {
    "README.md": b"# tiny",
    "tiny-Q8_0.gguf": gguf_files.whole(8000, seed=8),
    "tiny-Q4_K_M.gguf": BIG,
    "mmproj-tiny-f16.gguf": gguf_files.whole(3000, seed=3),
    "evil.py": b"print()",
    "pytorch_model.bin": b"\x80" * 9000,
}


def hub(**repo: object) -> PlayedHub:
    return PlayedHub({REPO: Repo(**{"files": dict(FILES), **repo})})  # type: ignore[arg-type]


async def brought(
    played: PlayedHub,
    folder: Path,
    name: str = f"hf:{REPO}",
    *,
    token: str | None = None,
    told: list[PullProgress] | None = None,
    stop: threading.Event | None = None,
) -> Manifest:
    store = Store(folder)
    return await asyncio.to_thread(
        pull,
        store,
        HubSettings(played.endpoint, token),
        parse_hub(name),
        tell=(lambda _p: None) if told is None else told.append,
        stop=stop,
    )


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.01)


def leftovers(folder: Path) -> list[Path]:
    return list((folder / "partial").iterdir())
