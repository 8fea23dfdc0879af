"""Which build of the processor's code runs here: found out in a child, before anything is loaded.

A library for another processor dies of an illegal instruction, and some do only once a model runs.
So each candidate computes a tiny model in a child (``probe.py``), the most capable first; the first
that survives is taken. A build with only one is asked as well, so that what would have been a dead
server is a message that says what to do. The answer is kept, by processor and by the libraries'
content.

Nothing native is loaded into this process.
"""

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.llama.libraries import built_in, library_folder, processor_variants

PROBE_SECONDS_MAX = 60.0
ORDER = "TURNPIKE_PROBE"  # the environment variable that makes a worker a probe
_ANSWERS_MAX = 32
_NOT_RUN = 5  # what went wrong has nothing to do with the processor
# Ways to die of a processor that lacks something, or of code that was compiled wrongly.
_DEADLY = {
    number
    for name in ("SIGILL", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGABRT")
    if (number := getattr(signal, name, None)) is not None
}
_WORDS = {signal.SIGILL: "an illegal instruction"} if hasattr(signal, "SIGILL") else {}

_lock = threading.Lock()
_known: dict[str, str] = {}


def choose(
    command: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
    cache: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The path of the library to load, empty where it is built in. Blocks for seconds the first
    time. Raises EngineLoadError when none runs on this processor.

    ``command`` starts a worker, ``environment`` is what it gets; ``folder`` is where the libraries
    are, ``cache`` the file that keeps answers.
    """
    folder = folder or library_folder()
    if folder is None:
        raise EngineLoadError("llama-cpp-python is not installed; run `make setup`")
    variants = processor_variants(folder)
    key = _key(variants or built_in(folder))
    cache = cache or _cache_file()
    with _lock:
        name = _known.get(key) or _remembered(cache, key)
        if name is None or (name and not (folder / name).is_file()):
            probe = _Probe(command, environment)
            name = probe.best_of(variants) if variants else probe.only()
            _remember(cache, key, name)
        _known[key] = name
    return str(folder / name) if variants else ""


class _Probe:
    """Asks children."""

    def __init__(
        self, command: Sequence[str] | None, environment: Mapping[str, str] | None
    ) -> None:
        frozen = bool(getattr(sys, "frozen", False))
        rest = ["worker"] if frozen else ["-m", "local_runtime.worker"]
        self._command = list(command or [sys.executable, *rest])
        ours = dict(os.environ) if environment is None else dict(environment)
        ours.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
        self._environment = ours | {"PYTHONSAFEPATH": "1", "GGML_NO_BACKTRACE": "1"}

    def best_of(self, variants: Sequence[Path]) -> str:
        """The name of the first that runs, by llama.cpp's own order of merit."""
        reasons = []
        for path in self._by_merit(variants):
            status, words = self._run({"library": str(path)})
            if status == 0:
                return path.name
            reasons.append(f"{path.name}: {_reason(status, words)}")
        raise EngineLoadError(
            "none of the builds of llama.cpp that are here runs on this processor; "
            + "; ".join(reasons or ["all say that they are not for it"])
        )

    def only(self) -> str:
        """Nothing, if the built-in library runs, or if that could not be found out."""
        status, words = self._run({"library": ""})
        if -status in _DEADLY or status in {3, 4}:  # probe.NOT_SUPPORTED, probe.WRONG
            raise EngineLoadError(
                "llama.cpp as it is installed does not run on this processor: "
                f"{_reason(status, words)}. Run `make portable`, which builds it for any"
            )
        return ""

    def _by_merit(self, variants: Sequence[Path]) -> list[Path]:
        """Those that do not say themselves that they are not for this processor, best first. One
        that dies when it is asked is left out, and the others are asked again.
        """
        left = list(variants)
        while left:
            status, words = self._run({"scores": [str(path) for path in left]})
            if status == _NOT_RUN:
                raise EngineLoadError(
                    "which build of llama.cpp runs on this processor cannot be found out: "
                    + " ".join(words)
                )
            scores = {
                name: int(score)
                for name, _, score in (line.rpartition("\t") for line in words)
                if score.isdigit()
            }
            if status == 0 or len(scores) >= len(left):
                fit = [path for path in left if scores.get(str(path), 0) > 0]
                return sorted(fit, key=lambda path: -scores[str(path)])
            left.pop(len(scores))
        return []

    def _run(self, order: dict[str, object]) -> tuple[int, list[str]]:
        """Exit status (negative: the signal that killed it), and the lines that it printed."""
        try:
            done = subprocess.run(  # noqa: S603  # our own program
                self._command,
                env=self._environment | {ORDER: json.dumps(order)},
                input=b"",
                capture_output=True,
                timeout=PROBE_SECONDS_MAX,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _NOT_RUN, [f"no answer within {PROBE_SECONDS_MAX:.0f} s"]
        except OSError as error:
            return _NOT_RUN, [str(error)]
        said = done.stdout if done.stdout.strip() else done.stderr[-500:]
        return done.returncode, said.decode("utf-8", "replace").splitlines()


def _reason(status: int, words: Sequence[str]) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"it died of {_WORDS.get(signal.Signals(-status), 'a crash')} ({name})"
    return words[-1] if words else f"it ended with status {status}"


def _key(libraries: Sequence[Path]) -> str:
    """Of the processor and of the libraries' content."""
    digest = hashlib.sha256(processor().encode())
    for path in libraries:
        with path.open("rb") as file:
            digest.update(f"\n{path.name}:".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def processor() -> str:
    """The processor's model and features, as text that is the same on every machine that has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def processor_name() -> str:
    """The processor's model, for people."""
    for line in processor().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def _cache_file() -> Path | None:
    """In this user's caches, by the platform's own rule; None where there is no home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        configured = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(configured) if configured.startswith("/") else home / ".cache"
    return base / "turnpike" / "processor-variants.json"


def _remembered(cache: Path | None, key: str) -> str | None:
    return _answers(cache).get(key) if cache is not None else None


def _answers(cache: Path) -> dict[str, str]:
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
        return {str(key): Path(str(name)).name for key, name in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _remember(cache: Path | None, key: str, name: str) -> None:
    """In one step, so that no reader sees half of it; without a place, it is found out again."""
    if cache is None:
        return
    answers = dict(list(_answers(cache).items())[-_ANSWERS_MAX:]) | {key: name}
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(
            "w", dir=cache.parent, delete=False, encoding="utf-8"
        ) as draft:
            json.dump(answers, draft)
        Path(draft.name).replace(cache)
