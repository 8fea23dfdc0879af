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
    assert portable().flags == ("CMAKE_BUILD_RPATH_USE_ORIGIN=ON", "GGML_NATIVE=OFF")
    assert portable().cxx_flags == ()
    assert portable().cpu == ""


def test_a_native_build_is_told_to_look_at_the_processor() -> None:
    native = recipe(LOCK, "native", COMPILERS, gcc=False)
    assert native.flags == ("CMAKE_BUILD_RPATH_USE_ORIGIN=ON", "GGML_NATIVE=ON")


@pytest.mark.parametrize("variant", ["native", "everywhere"])
def test_a_build_with_amx_works_around_gcc_only(variant: str) -> None:
    assert "-fno-tree-dse" in recipe(LOCK, variant, COMPILERS, gcc=True).cxx_flags
    assert recipe(LOCK, variant, COMPILERS, gcc=False).cxx_flags == ()


def built_in(work: Path, made_by: Recipe) -> dict[str, bytes]:
    """Two small libraries, one in C and one in C++ that needs it, as llama.cpp's are made."""
    cmake = shutil.which("cmake", path=PATH)
    if cmake is None:
        pytest.skip("there is no cmake: the wheel was in the cache")
    source, build = work / "source", work / "build"
    source.mkdir(parents=True)
    (source / "base.c").write_text("const char *base(void) { return __FILE__; }\n")
    (source / "plus.cpp").write_text(
        'extern "C" const char *base(void);\n'
        'extern "C" const char *plus(int a) { return a ? base() : __FILE__; }\n'
    )
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.21)\nproject(small C CXX)\n"
        "set(CMAKE_BUILD_WITH_INSTALL_RPATH FALSE)\n"  # as llama-cpp-python does
        "add_library(base SHARED base.c)\nadd_library(plus MODULE plus.cpp)\n"
        "target_link_libraries(plus base)\ninstall(TARGETS base plus DESTINATION lib)\n"
    )
    settings = [f"-D{each}" for each in made_by.definitions(work)]
    for command in (
        ["-S", str(source), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", *settings],
        ["--build", str(build)],
        ["--install", str(build), "--prefix", str(work / "installed")],
    ):
        subprocess.run([cmake, *command], check=True, capture_output=True)
    return {path.stem: path.read_bytes() for path in (work / "installed" / "lib").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="the binary's promise is Linux's")
@pytest.mark.parametrize("variant", ["portable", "native", "everywhere"])
def test_all_clones_build_the_same_wherever_they_lie(variant: str, tmp_path: Path) -> None:
    made_by = recipe(LOCK, variant, COMPILERS, gcc=toolchain.cxx_is_gcc())
    one = built_in(tmp_path / "clone", made_by)
    other = built_in(tmp_path / "a folder of mine", made_by)
    assert set(one) == {"libbase", "libplus"}
    for name, library in one.items():
        assert os.fsencode(tmp_path) not in library
        assert library == other[name]


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.3.37"},
        {"sdist_sha256": "0" * 64},
        {"flags": ("GGML_NATIVE=ON",)},
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
