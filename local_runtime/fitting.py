"""Which layout of a model is fastest on this machine: made, measured, offered; never used unasked.

Everything native happens in children. What was measured is kept in the store, by the weights' hash
and the processor, so that it is not measured twice; the layouts themselves are thrown away again
unless one is accepted, as another variant of the model whose name says what it was made from.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from local_runtime.engines.llama.variants import ORDER, choose, processor, processor_name
from local_runtime.engines.threads import usable_cores
from local_runtime.store.blobs import StoreError, write_whole
from local_runtime.store.catalog import Manifest, Store
from local_runtime.store.importing import import_path
from local_runtime.store.names import StoreName

LAYOUTS_DEFAULT = ("Q4_0", "Q8_0")
LAYOUTS = ("Q4_0", "Q4_K_M", "Q5_0", "Q6_K", "Q8_0", "IQ4_NL")
ROUNDS = 2
WORTH = 1.15  # so many times as fast, or it is not offered
_PERCENT = 100

_QUALITY = {
    "Q4_0": "4 bits and one scale for 32 weights, the coarsest here",
    "IQ4_NL": "4 bits on an uneven scale, a little finer than Q4_0",
    "Q4_K_M": "4 to 6 bits with finer scales",
    "Q5_0": "5 bits and one scale for 32 weights",
    "Q6_K": "6 bits with fine scales, close to the original",
    "Q8_0": "8 bits, next to no loss of its own",
}

Tell = Callable[[str, int, int], None]


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second of a layout: reading a prompt, writing for one, and for 16 together.

    ``agreement`` is in how many of 100 places of a sample text it goes on like the file as it is.
    """

    layout: str
    bytes: int
    prompt: float
    one: float
    many: float
    agreement: float


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on one processor. The first of ``speeds`` is the file as it is.

    ``best`` is the layout that is worth changing to, None where none is.
    """

    model: str
    processor: str
    threads: int
    speeds: list[Speed]

    @property
    def best(self) -> Speed | None:
        """By the mean of the three speed-ups."""
        found = max(self.speeds[1:], key=self.gain, default=None)
        return found if found is not None and self.gain(found) >= WORTH else None

    def gain(self, speed: Speed) -> float:
        """The geometric mean of the three speed-ups."""
        base = self.speeds[0]
        ratios = (speed.prompt / base.prompt, speed.one / base.one, speed.many / base.many)
        return float((ratios[0] * ratios[1] * ratios[2]) ** (1 / 3))


def quality_of(fit: Fit, speed: Speed) -> str:
    """What changing to a layout costs, in words."""
    return (
        f"{_QUALITY.get(speed.layout, speed.layout)}; made from weights that were rounded before, "
        f"so it is never better than a {speed.layout} of the original weights. On a sample text it "
        f"goes on like {fit.speeds[0].layout} in {speed.agreement:.0f} of 100 places"
    )


def variant_name(manifest: Manifest, layout: str) -> str:
    """What the variant is called in the store."""
    return f"{layout}-from-{manifest.variant}"


def measure(
    store: Store,
    manifest: Manifest,
    layouts: Sequence[str] = (),
    *,
    command: Sequence[str] | None = None,
    tell: Tell = lambda _what, _done, _total: None,
) -> Fit:
    """Make each layout, measure all of them in turn, keep what was found. Raises StoreError."""
    source = weights_of(store, manifest)
    wanted = [each for each in layouts or LAYOUTS_DEFAULT if each != manifest.variant]
    child = _Child(command)
    with _workshop(store) as folder:
        files = {manifest.variant: source}
        for layout in wanted:
            files[layout] = folder / f"{layout}.gguf"
            child.make(source, files[layout], layout, tell)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
        steps = ROUNDS * len(files)
        for step in range(steps):  # in turn, so that a busy moment does not hit one alone
            name = list(files)[step % len(files)]
            tell(f"measuring {name}", step, steps)
            found[name].append(child.measured(files[name]))
        fit = Fit(
            model=str(manifest.name),
            processor=processor_name(),
            threads=max(int(each["threads"]) for each in found[manifest.variant]),
            speeds=[
                _speed(name, files[name], found[name], found[manifest.variant]) for name in files
            ],
        )
    path = _kept_at(store, manifest)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(path, msgspec.json.format(msgspec.json.encode(fit)))
    return fit


def remembered(store: Store, manifest: Manifest) -> Fit | None:
    """What was measured for these weights on such a processor before."""
    try:
        return msgspec.json.decode(_kept_at(store, manifest).read_bytes(), type=Fit)
    except (OSError, msgspec.MsgspecError):
        return None


def accept(
    store: Store,
    manifest: Manifest,
    layout: str,
    *,
    command: Sequence[str] | None = None,
    tell: Tell = lambda _what, _done, _total: None,
) -> Manifest:
    """Make the layout, and take it into the store as a variant. Raises StoreError."""
    source = weights_of(store, manifest)
    variant = variant_name(manifest, layout)
    with _workshop(store) as folder:
        made = folder / f"{manifest.id.rpartition('/')[2]}-{variant}.gguf"
        _Child(command).make(source, made, layout, tell)
        name = str(StoreName(manifest.id, variant))
        taken = import_path(store, made, name, link=True, replace=True, tell=tell)
    taken = msgspec.structs.replace(
        taken,
        source=manifest.source,
        revision=manifest.revision,
        licence=manifest.licence,
        parent=manifest.variant,
    )
    store.put(taken)
    return taken


def weights_of(store: Store, manifest: Manifest) -> Path:
    """The one file of weights. Raises StoreError where there is no such thing."""
    if manifest.format != "gguf":
        raise StoreError(f"{manifest.name} is not a GGUF file, and only those have layouts")
    if len(manifest.of_role("weights")) != 1:
        raise StoreError(
            f"{manifest.name} is in several parts; merge them with llama-gguf-split first"
        )
    return store.weights_path(manifest)


def _speed(
    name: str, path: Path, rounds: list[dict[str, Any]], base: list[dict[str, Any]]
) -> Speed:
    """The best of the rounds: whatever disturbs only makes slower."""
    same = sum(a == b for a, b in zip(rounds[0]["said"], base[0]["said"], strict=True))
    best = {key: max(float(each[key]) for each in rounds) for key in ("prompt", "one", "many")}
    return Speed(
        layout=name,
        bytes=path.stat().st_size,
        agreement=round(_PERCENT * same / len(base[0]["said"]), 1),
        **{key: round(value, 1) for key, value in best.items()},
    )


def _kept_at(store: Store, manifest: Manifest) -> Path:
    weights = manifest.of_role("weights")[0].sha256
    machine = hashlib.sha256(f"{processor()}\n{usable_cores()}".encode()).hexdigest()
    return store.root / "measured" / weights / f"{machine[:32]}.json"


@contextmanager
def _workshop(store: Store) -> Iterator[Path]:
    """A folder on the store's own disk, so that what is accepted need not be copied; ``prune``
    removes what a power cut leaves of it.
    """
    with tempfile.TemporaryDirectory(prefix="fitting-", dir=store.blobs.partial) as folder:
        yield Path(folder)


class _Child:
    """Has work done in a process of its own, and reads its lines."""

    def __init__(self, command: Sequence[str] | None) -> None:
        frozen = bool(getattr(sys, "frozen", False))
        rest = ["worker"] if frozen else ["-m", "local_runtime.worker"]
        self._command = list(command or [sys.executable, *rest])
        self._library = choose(self._command)

    def make(self, source: Path, target: Path, layout: str, tell: Tell) -> None:
        if layout not in LAYOUTS:
            raise StoreError(f"{layout} is not a layout that is made here: {', '.join(LAYOUTS)}")
        order = {"do": "requantise", "source": str(source), "target": str(target)}
        self._ask(
            order | {"layout": layout, "threads": usable_cores()},
            lambda done, total: tell(f"making {layout}", done, total),
        )

    def measured(self, path: Path) -> dict[str, Any]:
        result = self._ask({"do": "measure", "path": str(path)}, lambda _done, _total: None)
        if not isinstance(result, dict):
            raise StoreError(f"{path.name} could not be measured")
        return result

    def _ask(self, order: dict[str, object], further: Callable[[int, int], None]) -> Any:
        """The result, if it gives one. Raises StoreError with what it says."""
        order["processor_library"] = self._library
        code = str(Path(__file__).resolve().parents[1])
        environment = os.environ | {ORDER: json.dumps(order), "GGML_NO_BACKTRACE": "1"}
        environment.setdefault("PYTHONPATH", code)
        result, problem = None, ""
        with subprocess.Popen(  # noqa: S603  # our own program
            self._command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as child:
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    said = _line(line)
                    if "total" in said:
                        further(int(said["done"]), int(said["total"]))
                    result = said.get("result", result)
                    problem = str(said.get("error", problem))
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            raise StoreError(problem or f"the work ended with status {child.returncode}")
        return result


def _line(line: bytes) -> dict[str, Any]:
    """A line of JSON; native code prints others too."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
