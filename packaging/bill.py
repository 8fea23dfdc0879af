"""What is inside the binary: a bill of materials (CycloneDX), and everybody's licence.

Python distributions come from the environment that the binary is made of, as cyclonedx-py lists it,
less what only makes it. What else is linked or copied in is added by hand here.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ASK = """
import importlib.metadata as m, json, platform, sqlite3, ssl, sysconfig
from pathlib import Path
licences = {}
for each in m.distributions():
    texts = [
        str(each.locate_file(file)) for file in each.files or []
        if ".dist-info" in str(file) and any(
            word in file.name.upper() for word in ("LICENSE", "LICENCE", "COPYING", "NOTICE"))
    ]
    licences[each.metadata["Name"]] = [
        each.version, each.metadata.get("License-Expression") or each.metadata.get("License") or "",
        sorted(texts)]
print(json.dumps({
    "licences": licences, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version,
    "openssl": ssl.OPENSSL_VERSION.split()[1],
    "python_licence": str(Path(sysconfig.get_path("stdlib"), "LICENSE.txt")),
}))
"""
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)
_LINKED = {  # beside Python's own distributions: name → (version's key, licence)
    "CPython": ("python", "PSF-2.0"),
    "SQLite": ("sqlite", "blessing"),
    "OpenSSL": ("openssl", "Apache-2.0"),
}
_WORDS = {
    "llama.cpp": "MIT. Copyright (c) 2023-2026 The ggml authors. The terms are those of"
    " llama_cpp_python in this file.",
    "Intel oneAPI Math Kernel Library": "In the edition with torch, within torch. Intel Simplified"
    " Software License; its text is among torch's.",
    "oneDNN": "In the edition with torch, within torch. Apache-2.0, the text of which is in this"
    " file under Turnpike.",
    "SQLite": "In the public domain.",
    "OpenSSL": "Apache-2.0, the text of which is in this file under Turnpike.",
}
# What torch needs only to compile models anew or to be built, and nothing here imports.
NOT_OF_TORCH = frozenset({"mpmath", "networkx", "setuptools", "sympy"})
_IN_TORCH = {
    "Intel oneAPI Math Kernel Library": (r"Math Kernel Library Version (\S+)", "Intel ISSL"),
    "oneDNN": (r"MKL-DNN v(\S+)", "Apache-2.0"),
}
_NVIDIAS = ("libcudart", "libcublas")
_NVIDIAS_TERMS = (
    "NVIDIA's, under the licence agreement of its CUDA toolkit, which lets programs that are made"
    " with it bring these libraries along (attachment A)."
)
_RULE = "=" * 100
SBOM, LICENCES = "sbom.cdx.json", "LICENSES.txt"


def write(
    environment: Path,
    python: Path,
    root: Path,
    into: Path,
    version: str,
    *,
    with_torch: bool = False,
    backend: Sequence[str] = (),
) -> None:
    """``SBOM`` and ``LICENCES`` into the folder ``into``, where all that is inside lies already.

    ``backend`` are the libraries for a graphics card.
    """
    asked = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, check=True)
    facts = json.loads(asked.stdout)
    inside = distributions(root, with_torch=with_torch)
    sbom = json.loads(environment.read_text(encoding="utf-8"))
    components = [
        each for each in sbom.get("components", []) if plain(each["name"]) in inside - {"turnpike"}
    ]
    system = _system_libraries(into)
    components += _by_hand(facts, system)
    components += _within_torch(python) if with_torch else []
    nvidias = [each for each in backend if each.startswith(_NVIDIAS)]
    components += [
        {"type": "library", "name": each, "version": each.partition(".so.")[2] or "unknown"}
        | {"licenses": [{"license": {"name": "NVIDIA CUDA Toolkit EULA"}}]}
        for each in nvidias
    ]
    components.sort(key=lambda each: (str(each["name"]).lower(), str(each["version"])))
    for each in components:
        _forget_this_machine(each)
    sbom["components"] = components
    kept = {each["bom-ref"] for each in components if "bom-ref" in each}
    sbom["dependencies"] = [
        each | {"dependsOn": sorted(set(each.get("dependsOn", [])) & kept)}
        for each in sbom.get("dependencies", [])
        if each["ref"] in kept
    ]
    sbom["metadata"] = {
        "component": {"type": "application", "name": "turnpike", "version": version},
        "tools": sbom.get("metadata", {}).get("tools", {}),
    }
    text = json.dumps(sbom, indent=1, sort_keys=True)
    (into / SBOM).write_text(text + "\n", encoding="utf-8")
    licences = _licences(facts, inside, system, root)
    if nvidias:
        licences += f"\n{_RULE}\n{', '.join(nvidias)}\n{_RULE}\n{_NVIDIAS_TERMS}\n"
    (into / LICENCES).write_text(licences, encoding="utf-8")


def _forget_this_machine(component: dict[str, Any]) -> None:
    """Drop where on this disk a wheel lay."""
    if "externalReferences" in component:
        component["externalReferences"] = [
            each
            for each in component["externalReferences"]
            if not str(each.get("url", "")).startswith("file:")
        ]


def distributions(root: Path, *, with_torch: bool = False) -> set[str]:
    """Names of the distributions that are in the binary."""
    inside = locked(root, "runtime", "llama", "starter") | {"turnpike"}
    if with_torch:
        inside |= (locked(root, "torch") | {"torch"}) - NOT_OF_TORCH
    return inside


def _within_torch(python: Path) -> list[dict[str, Any]]:
    """What torch's own build says that it was linked with; the licences are in torch's notices."""
    ask = "import torch; print(torch.__config__.show())"
    told = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, check=True)
    found = []
    for name, (pattern, licence) in _IN_TORCH.items():
        version = re.search(pattern, told.stdout)
        if version is not None:
            about = {"type": "library", "name": name, "version": version[1]}
            found.append(about | {"licenses": [{"license": {"name": licence}}]})
    return found


def locked(root: Path, *names: str) -> set[str]:
    """Names of the distributions in these lock files."""
    locks = root / "packaging" / "locks"
    texts = [(locks / f"{name}.txt").read_text("utf-8") for name in names]
    return {plain(name) for text in texts for name in _NAME.findall(text)}


def _system_libraries(bundle: Path) -> dict[str, tuple[str, list[str]]]:
    """Packages of the system whose libraries were copied in: name → version and libraries.

    Where the system is not Debian's kind, each library stands for itself.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    for path in sorted(bundle.glob("lib*.so*")):
        if path.is_symlink() or path.name.startswith("libpython"):
            continue
        owner = _told("dpkg", "-S", f"*/{path.name}").partition(":")[0] or path.name
        version = _told("dpkg-query", "-W", "-f=${Version}\n", owner).partition("\n")[0]
        found.setdefault(owner, (version or "unknown", []))[1].append(path.name)
    return found


def _told(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def plain(name: str) -> str:
    """A distribution's name as all spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _by_hand(
    facts: dict[str, Any], system: dict[str, tuple[str, list[str]]]
) -> list[dict[str, Any]]:
    """Libraries that no Python distribution names."""
    bindings = facts["licences"]["llama_cpp_python"][0]
    found: list[dict[str, Any]] = [
        {
            "type": "library",
            "name": "llama.cpp",
            "version": f"as in llama-cpp-python {bindings}",
            "licenses": [{"license": {"id": "MIT"}}],
        }
    ]
    for name, (key, licence) in _LINKED.items():
        found.append(
            {
                "type": "library",
                "name": name,
                "version": facts[key],
                "licenses": [{"license": {"id": licence}}],
            }
        )
    for name, (version, libraries) in system.items():
        about = {"type": "library", "name": name, "version": version}
        found.append(about | {"description": f"from the system: {', '.join(libraries)}"})
    return found


def _licences(
    facts: dict[str, Any],
    inside: set[str],
    system: dict[str, tuple[str, list[str]]],
    root: Path,
) -> str:
    """All texts, one after the other."""
    parts = [
        "Turnpike, and what is inside its binary. Each part stands under its own licence:\n",
        _section("Turnpike", "", [root / "LICENSE"]),
        _section("CPython", facts["python"], [Path(facts["python_licence"])]),
    ]
    parts += [f"{_RULE}\n{name} \n{_RULE}\n{words}\n" for name, words in _WORDS.items()]
    for name, (version, licence, texts) in sorted(facts["licences"].items(), key=_by_name):
        if plain(name) in inside and plain(name) != "turnpike":
            told = licence if len(licence) < 100 else ""
            parts.append(_section(name, version, [Path(text) for text in texts], told))
    for name, (version, _) in sorted(system.items()):
        text = Path("/usr/share/doc", name, "copyright")
        parts.append(_section(name, version, [text], "from the system that it was built on"))
    return "\n".join(parts)


def _by_name(item: tuple[str, Any]) -> str:
    return item[0].lower()


def _section(name: str, version: str, files: list[Path], licence: str = "") -> str:
    texts = [file.read_text("utf-8", errors="replace").strip() for file in files if file.is_file()]
    head = " ".join(filter(None, [name, version, f"({licence})" if licence else ""]))
    return "\n".join([_RULE, head, _RULE, *texts, ""])
