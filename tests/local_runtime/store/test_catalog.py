"""The store on disk: blobs by hash, manifests, imports, and what is removed."""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from local_runtime.store.accepted import FileRefused
from local_runtime.store.blobs import StoreError, WrongContent
from local_runtime.store.catalog import Manifest, NotInStore, Store, StoredFile
from local_runtime.store.facts import facts_of
from local_runtime.store.importing import AlreadyThere, import_path
from local_runtime.store.names import NameRefused, StoreName
from local_runtime.store.prune import prune
from tests.local_runtime.calls import smollm_path
from tests.local_runtime.store import gguf_files
from tests.upstreams.hub import safetensors


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def made(tmp_path: Path, name: str = "tiny-Q4_0.gguf", seed: int = 0) -> Path:
    path = tmp_path / name
    path.write_bytes(gguf_files.whole(500, seed=seed))
    path.chmod(0o644)
    return path


def test_an_import_is_named_hashed_and_found(store: Store, tmp_path: Path) -> None:
    path = made(tmp_path)
    manifest = import_path(store, path)
    assert str(manifest.name) == "tiny:Q4_0"
    assert manifest.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    found = store.weights_path(store.get(StoreName("tiny")))
    assert found.name == "tiny-Q4_0.gguf"
    assert found.read_bytes() == path.read_bytes()
    assert "/" not in manifest.source.removeprefix("file:")  # a bundle would carry it elsewhere


def test_a_link_copies_nothing_and_a_copy_stays_as_it_was(store: Store, tmp_path: Path) -> None:
    path = made(tmp_path)
    linked = store.weights_path(import_path(store, path, "linked", link=True))
    assert linked.stat().st_ino == path.stat().st_ino
    assert path.stat().st_mode & 0o777 == 0o644
    copied = store.weights_path(import_path(store, made(tmp_path, seed=1), "copied"))
    assert copied.stat().st_mode & 0o777 == 0o600
    made(tmp_path, seed=2)
    assert copied.read_bytes() == gguf_files.whole(500, seed=1)


def test_what_others_may_write_is_copied(store: Store, tmp_path: Path) -> None:
    path = made(tmp_path)
    path.chmod(0o666)
    mine = store.weights_path(import_path(store, path, link=True))
    assert mine.stat().st_ino != path.stat().st_ino


def test_the_real_model(store: Store) -> None:
    manifest = import_path(store, smollm_path(), "acme/smol")
    facts = facts_of(store, manifest)
    assert (facts.architecture, facts.context_length) == ("llama", 8192)
    assert facts.parameters == 134_515_008
    assert (facts.chat_template, facts.tools, manifest.licence) == (True, False, "apache-2.0")
    assert facts.memory_bytes is not None and facts.memory_bytes > manifest.bytes


def test_a_folder_of_safetensors(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(a=b"xyz"))
    (folder / "evil.py").write_text("import os")
    manifest = import_path(store, folder)
    assert str(manifest.name) == "bert:safetensors"
    assert {file.name for file in manifest.files} == {"config.json", "model.safetensors"}
    assert facts_of(store, manifest).parameters == 3
    assert store.weights_path(manifest).name == "model.safetensors"


def test_a_folder_of_parts_with_a_projector(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "big-GGUF"
    folder.mkdir()
    for number, piece in enumerate(gguf_files.parts(["a.weight", "b.weight"]), 1):
        (folder / f"big-Q8_0-{number:05}-of-00002.gguf").write_bytes(piece)
    (folder / "mmproj-big-f16.gguf").write_bytes(gguf_files.whole(9))
    manifest = import_path(store, folder, "acme/big")
    assert str(manifest.name) == "acme/big:Q8_0"
    assert len(manifest.of_role("weights")) == 2
    assert store.projector_path(manifest) is not None
    again = import_path(store, folder / "big-Q8_0-00001-of-00002.gguf", "again")
    assert len(again.files) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.gguf", b"not a model, by far not", "too few|letters GGUF"),
        ("m.bin", b"x", "one file is a GGUF file"),
        ("m.safetensors", safetensors(a=b"x"), "imported by its folder"),
    ],
)
def test_what_is_no_model_is_refused(
    store: Store, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises((StoreError, FileRefused), match=says):
        import_path(store, path)
    assert list(store.blobs.every()) == [] and store.every() == []


def test_another_model_of_the_name_is_not_replaced_unasked(store: Store, tmp_path: Path) -> None:
    import_path(store, made(tmp_path), "a", link=False)
    import_path(store, made(tmp_path), "a", link=False)
    with pytest.raises(AlreadyThere, match="--replace"):
        import_path(store, made(tmp_path, seed=5), "a", link=False)
    import_path(store, made(tmp_path, seed=5), "a", link=False, replace=True)
    assert len(store.every()) == 1


def test_links_and_pipes_are_not_followed_out_of_the_store(store: Store, tmp_path: Path) -> None:
    manifest = import_path(store, made(tmp_path), link=False)
    path = store.weights_path(manifest)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="missing or was changed"):
        store.weights_path(manifest)
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(StoreError):
        import_path(store, tmp_path / "pipe.gguf")
    partial = store.blobs.partial / "x.part"
    partial.symlink_to(made(tmp_path))
    with pytest.raises(StoreError, match="symbolic link"):
        store.blobs.adopt(partial)


def test_a_store_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        Store(tmp_path / "models")


@pytest.mark.parametrize("digest", ["", "x" * 64, "../../etc/passwd", "A" * 64, "0" * 63])
def test_what_is_no_digest(store: Store, digest: str) -> None:
    with pytest.raises(StoreError, match="not a SHA-256"):
        store.blobs.path(digest)


def test_wrong_content_gets_no_name(store: Store) -> None:
    partial = store.blobs.partial_path("x")
    for told in ({"size": 3}, {"digest": "0" * 64}, {"git_oid": "0" * 40}):
        partial.write_bytes(b"abcd")
        with pytest.raises(WrongContent):
            store.blobs.adopt(partial, **told)
        assert not partial.exists()
    assert list(store.blobs.every()) == []


FILE = {"name": "m.gguf", "bytes": 1, "sha256": "0" * 64, "role": "weights"}


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "../../etc"},
        {"variant": "../x"},
        {"files": []},
        {"files": [{**FILE, "name": "../m.gguf"}]},
        {"files": [{**FILE, "name": "/etc/passwd"}]},
        {"files": [{**FILE, "sha256": "zz"}]},
        {"files": [FILE, {**FILE, "name": "M.gguf"}]},
        {"surprise": 1},
    ],
)
def test_a_manifest_that_somebody_changed_is_refused(
    store: Store, tmp_path: Path, changed: dict[str, object]
) -> None:
    manifest = import_path(store, made(tmp_path))
    (path,) = (store.root / "manifests").iterdir()
    path.write_bytes(msgspec.json.encode({**msgspec.to_builtins(manifest), **changed}))
    with pytest.raises(StoreError, match="is damaged"):
        store.get(manifest.name)
    assert store.every() == []


def test_what_is_asked_for_and_not_there(store: Store, tmp_path: Path) -> None:
    import_path(store, made(tmp_path))
    with pytest.raises(NotInStore, match="of tiny there is: Q4_0"):
        store.get(StoreName("tiny", "Q8_0"))
    with pytest.raises(NotInStore, match="models list --store"):
        store.get(StoreName("none"))
    with pytest.raises(NameRefused):
        store.get(StoreName("../x"))


def test_the_preferred_variant_is_taken(store: Store, tmp_path: Path) -> None:
    for seed, variant in enumerate(["F16", "Q4_K_M", "Q8_0"]):
        import_path(store, made(tmp_path, f"t-{variant}.gguf", seed), "a/t", link=False)
    assert store.get(StoreName("a/t")).variant == "Q4_K_M"
    assert store.get(StoreName("a/t", "q8_0")).variant == "Q8_0"


def test_removing_keeps_what_another_model_has(store: Store, tmp_path: Path) -> None:
    path = made(tmp_path)
    import_path(store, path, "one")
    import_path(store, path, "two")
    assert store.remove(StoreName("one"))[1] == 0
    assert store.weights_path(store.get(StoreName("two"))).exists()
    assert store.remove(StoreName("two"))[1] == path.stat().st_size
    assert list(store.blobs.every()) == []
    assert list((store.root / "models").iterdir()) == []


def test_pruning_takes_only_what_nobody_has(store: Store, tmp_path: Path) -> None:
    kept = import_path(store, made(tmp_path), link=False)
    partial = store.blobs.partial_path("orphan")
    partial.write_bytes(b"some other content")
    orphan = store.blobs.adopt(partial)
    part = store.blobs.partial_path("old")
    part.write_bytes(b"xx")
    os.utime(part, (1, 1))
    assert [each.what for each in prune(store, older_than_s=3600, dry_run=True)] == ["partial"]
    assert part.exists()
    assert [each.bytes for each in prune(store, older_than_s=3600)] == [2]
    assert [each.name for each in prune(store, older_than_s=0)] == [f"sha256-{orphan}"]
    assert [digest for digest, _ in store.blobs.every()] == [kept.files[0].sha256]
    assert store.weights_path(kept).exists()


def test_a_manifest_never_names_blobs_that_are_gone(store: Store) -> None:
    """A pull whose blobs were removed meanwhile fails, and has no name with nothing behind it."""
    manifest = Manifest(
        id="a", variant="b", format="gguf", source="x", at_ms=0,
        files=[StoredFile("m.gguf", 1, "0" * 64, "weights")],
    )  # fmt: skip
    with pytest.raises(StoreError, match="went away"):
        store.put(manifest)


def test_adding_and_removing_at_once_leaves_every_name_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    paths = [made(tmp_path, f"m{n}-Q4_0.gguf", n % 2) for n in range(4)]
    wrong: list[BaseException] = []

    def work(path: Path) -> None:
        own = Store(tmp_path / "models")
        try:
            for _ in range(10):
                try:
                    manifest = import_path(own, path, link=False)
                except StoreError as error:
                    assert "went away" in str(error)
                    continue
                own.remove(manifest.name)
        except BaseException as error:  # noqa: BLE001 - asserted on below
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for manifest in store.every():
        store.weights_path(manifest)


@pytest.fixture
def contested(store: Store, tmp_path: Path) -> Iterator[Manifest]:
    """A model whose content somebody else takes in again all the time."""
    path = made(tmp_path)
    manifest = import_path(store, path)
    over = threading.Event()

    def take_in() -> None:
        while not over.is_set():
            partial = store.blobs.partial_path("again")
            shutil.copyfile(path, partial)
            store.blobs.keep(partial, manifest.files[0].sha256)

    thread = threading.Thread(target=take_in)
    thread.start()
    yield manifest
    over.set()
    thread.join()


def test_a_blob_replaced_while_it_is_linked_is_linked_all_the_same(
    store: Store, contested: Manifest
) -> None:
    """Link(2) finds no file when another takes the blob's name between its look and its deed."""
    for _ in range(400):
        store.put(contested)
        assert store.weights_path(contested).read_bytes() == gguf_files.whole(500)


def test_what_is_pruned_may_become_a_blob_meanwhile(store: Store, contested: Manifest) -> None:
    for _ in range(2000):
        assert prune(store, older_than_s=3600) == []
    assert store.weights_path(contested).exists()
