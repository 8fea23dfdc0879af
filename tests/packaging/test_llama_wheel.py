"""The cache of built wheels: right by its key, whole by its hash."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import toolchain
from llama_wheel import Recipe, WheelCache, ninja_progress, recipe

LOCK = Path(__file__).resolve().parents[2] / "packaging" / "locks" / "llama.txt"
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
COMPILERS = ("/usr/bin/cc: cc 12.2.0", "/usr/bin/c++: c++ 12.2.0")


def portable() -> Recipe:
    return recipe(LOCK, "portable", COMPILERS, gcc=True)


def kept(tmp_path: Path, made_by: Recipe, data: bytes = b"wheel") -> tuple[WheelCache, Path]:
    built = tmp_path / "llama_cpp_python-0.3.36-py3-none-any.whl"
    built.write_bytes(data)
    cache = WheelCache(tmp_path / "cache")
    return cache, cache.keep(built, made_by)


def test_the_lock_pins_one_sdist() -> None:
    assert portable().version == "0.3.36"
    assert len(portable().sdist_sha256) == 64


def test_a_portable_build_is_told_not_to_look_at_the_processor() -> None:
    assert portable().flags == ("cmake.define.GGML_NATIVE=OFF",)
    assert portable().cxx_flags == ()
    assert portable().cpu == ""


@pytest.mark.parametrize("variant", ["native", "everywhere"])
def test_a_build_with_amx_works_around_gcc_only(variant: str) -> None:
    assert "-fno-tree-dse" in recipe(LOCK, variant, COMPILERS, gcc=True).cxx_flags
    assert recipe(LOCK, variant, COMPILERS, gcc=False).cxx_flags == ()


@pytest.mark.skipif(os.name == "nt", reason="Microsoft's compiler knows no such option")
@pytest.mark.parametrize("folder", ["work", "a folder of mine"])
@pytest.mark.parametrize("variant", ["portable", "native", "everywhere"])
def test_the_path_of_a_build_is_not_in_what_is_built(
    variant: str, folder: str, tmp_path: Path
) -> None:
    """Cmake compiles something small as it would compile llama.cpp, both of its languages."""
    work = tmp_path / folder
    source = work / "source"
    source.mkdir(parents=True)
    for name in ("plain.c", "plus.cpp"):
        tag = 'extern "C" ' if name.endswith("cpp") else ""
        text = f"{tag}const char *of_{name[:4]}(void) {{ return __FILE__; }}\n"
        (source / name).write_text(text)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.21)\nproject(small C CXX)\n"
        "add_library(small SHARED plain.c plus.cpp)\n"
    )
    made_by = recipe(LOCK, variant, COMPILERS, gcc=toolchain.cxx_is_gcc())
    settings = [each.removeprefix("cmake.define.") for each in made_by.settings(work)]
    cmake = os.fspath(shutil.which("cmake", path=PATH) or pytest.skip("there is no cmake"))
    build = work / "build"
    configure = [cmake, "-S", str(source), "-B", str(build), *(f"-D{each}" for each in settings)]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run([cmake, "--build", str(build)], check=True, capture_output=True)
    library = next(build.glob("libsmall.*")).read_bytes()
    assert os.fsencode(work) not in library
    assert b"./source/plain.c" in library
    assert b"./source/plus.cpp" in library


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.3.37"},
        {"sdist_sha256": "0" * 64},
        {"flags": ("cmake.define.GGML_NATIVE=ON",)},
        {"cxx_flags": ("-O0",)},
        {"compilers": (COMPILERS[0], "/usr/bin/c++: c++ 13.1.0")},
        {"system": "Other"},
        {"machine": "other"},
        {"libc": "glibc-2.17"},
        {"cpu": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_key_changes_with_all_that_the_bytes_depend_on(change: dict[str, str]) -> None:
    changed = dataclasses.replace(portable(), **change)  # type: ignore[arg-type]
    assert changed.key() != portable().key()


def test_a_kept_wheel_is_found_again(tmp_path: Path) -> None:
    cache, place = kept(tmp_path, portable())
    assert cache.find(portable()) == place
    assert place.read_bytes() == b"wheel"
    assert cache.find(dataclasses.replace(portable(), machine="other")) is None


def test_a_damaged_wheel_is_removed(tmp_path: Path) -> None:
    cache, place = kept(tmp_path, portable())
    place.write_bytes(b"whee")
    assert cache.find(portable()) is None
    assert not place.exists()
    _, place = kept(tmp_path, portable(), b"again")
    assert cache.find(portable()) == place


def test_a_note_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    cache, place = kept(tmp_path, portable())
    outside = tmp_path / "outside.whl"
    outside.write_bytes(b"wheel")
    note = json.loads((place.parent / "recipe.json").read_text("utf-8"))
    note["wheel"] = str(outside)
    (place.parent / "recipe.json").write_text(json.dumps(note), "utf-8")
    assert cache.find(portable()) is None
    assert outside.exists()


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        ("  [140/193] /usr/bin/g++ -DGGML_BUILD -o x.o -c x.cpp", (140, 193)),
        ("[1/2] cc", (1, 2)),
        ("-- Found OpenMP: TRUE", None),
        ("note [3/4]", None),
    ],
)
def test_ninja_counts(line: str, counted: tuple[int, int] | None) -> None:
    assert ninja_progress(line) == counted
