"""llama.cpp's own programs: built with the flags of the wheel, kept whole, found by recipe."""

import dataclasses
from pathlib import Path

from llama_cmake import KeptFiles, cmake_flags
from llama_tools import CUDA, PROGRAMS
from llama_wheel import Recipe, recipe

LOCK = Path(__file__).resolve().parents[2] / "packaging" / "locks" / "llama.txt"
COMPILERS = ("/usr/bin/cc: cc 12.2.0", "/usr/bin/c++: c++ 12.2.0")


def made_by(variant: str = "portable") -> Recipe:
    return recipe(LOCK, variant, COMPILERS, gcc=True)


def built(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_bytes(name.encode())
    (folder / "libllama.so.0").write_bytes(b"library")
    (folder / "libllama.so").symlink_to("libllama.so.0")
    return folder


def test_cmake_gets_the_flags_of_the_wheel(tmp_path: Path) -> None:
    assert "-DGGML_NATIVE=OFF" in cmake_flags(made_by(), tmp_path)
    native = cmake_flags(made_by("native"), tmp_path)
    assert "-DGGML_NATIVE=ON" in native
    (cxx,) = (flag for flag in native if flag.startswith("-DCMAKE_CXX_FLAGS="))
    assert cxx.startswith("-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse")


def test_what_was_built_is_found_with_its_libraries(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path / "cache", PROGRAMS)
    assert kept.find(made_by()) is None
    place = kept.keep(built(tmp_path), made_by())
    assert kept.find(made_by()) == place
    assert (place / "libllama.so").is_symlink()
    assert (place / "libllama.so").read_bytes() == b"library"


def test_a_build_of_other_flags_is_another(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path / "cache", PROGRAMS)
    kept.keep(built(tmp_path), made_by())
    assert kept.find(made_by("native")) is None
    cuda = dataclasses.replace(made_by(), flags=(*made_by().flags, *CUDA))
    assert kept.find(cuda) is None
    assert "-DGGML_CUDA=ON" in cmake_flags(cuda, tmp_path)


def test_a_damaged_program_is_not_used(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path / "cache", PROGRAMS)
    place = kept.keep(built(tmp_path), made_by())
    (place / PROGRAMS[0]).write_bytes(b"something else")
    assert kept.find(made_by()) is None
    assert not place.exists()
