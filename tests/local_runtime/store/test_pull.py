"""Pulls through the unmodified huggingface_hub, from a small real server that plays the Hub."""

import asyncio
import contextlib
import hashlib
import logging
import os
from pathlib import Path

import pytest

from local_runtime.store.catalog import Store
from local_runtime.store.choice import NothingToPull
from local_runtime.store.hub import HubSettings, PullFailed
from local_runtime.store.names import parse_hub
from local_runtime.store.pull import PullProgress, pull
from tests.local_runtime.store import gguf_files
from tests.local_runtime.store.pulling import BIG, FILES, REPO, brought, hub, leftovers
from tests.upstreams.hub import COMMIT, Repo, safetensors


async def test_a_pull_brings_the_preferred_quantisation_whole(tmp_path: Path) -> None:
    told: list[PullProgress] = []
    async with hub() as played:
        manifest = await brought(played, tmp_path, told=told)
    store = Store(tmp_path)
    assert str(manifest.name) == f"{REPO}:Q4_K_M"
    assert (manifest.revision, manifest.licence) == (COMMIT, "apache-2.0")
    assert store.weights_path(manifest).read_bytes() == BIG
    projector = store.projector_path(manifest)
    assert projector is not None and projector.name == "mmproj-tiny-f16.gguf"
    assert {f.sha256 for f in manifest.files} == {d for d, _ in store.blobs.every()}
    assert leftovers(tmp_path) == []
    assert told[0].stage == "asking" and told[-1].stage == "done"
    assert told[-1].bytes_done == told[-1].bytes_total == manifest.bytes
    done = [p.bytes_done for p in told if p.stage == "downloading"]
    assert done == sorted(done)
    asked = [a.path for a in played.asked]
    assert not any("evil" in path or ".bin" in path for path in asked)


async def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    async with hub() as played:
        await brought(played, tmp_path / "store")
    for path in (tmp_path / "store").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("quant", ["Q8_0", "q8_0", "tiny-q8_0"])
async def test_the_quantisation_is_found_however_it_is_written(tmp_path: Path, quant: str) -> None:
    async with hub() as played:
        manifest = await brought(played, tmp_path, f"hf:{REPO}:{quant}")
    assert manifest.variant == "Q8_0"


async def test_a_miss_says_what_there_is(tmp_path: Path) -> None:
    async with hub() as played:
        with pytest.raises(NothingToPull, match=r"Q4_K_M \(2 MB\), Q8_0"):
            await brought(played, tmp_path, f"hf:{REPO}:Q5_K_M")


async def test_the_same_again_downloads_nothing(tmp_path: Path) -> None:
    async with hub() as played:
        first = await brought(played, tmp_path)
        sent = played.sent_bytes
        assert await brought(played, tmp_path) == first
        assert played.sent_bytes == sent


async def test_a_new_commit_brings_what_changed(tmp_path: Path) -> None:
    async with hub() as played:
        await brought(played, tmp_path)
        sent = played.sent_bytes
        repo = played.repos[REPO]
        repo.commit = "f" * 40
        repo.files["mmproj-tiny-f16.gguf"] = gguf_files.whole(3000, seed=77)
        manifest = await brought(played, tmp_path)
        assert manifest.revision == "f" * 40
        assert played.sent_bytes - sent == len(repo.files["mmproj-tiny-f16.gguf"])


async def test_split_files_come_whole(tmp_path: Path) -> None:
    pieces = gguf_files.parts(["a.weight", "b.weight", "c.weight"])
    names = [f"Q4_0/big-Q4_0-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    async with hub(files=dict(zip(names, pieces, strict=True))) as played:
        manifest = await brought(played, tmp_path)
        assert [f.name for f in manifest.of_role("weights")] == names
        assert Store(tmp_path).weights_path(manifest).name.endswith("00001-of-00003.gguf")
        del played.repos[REPO].files[names[1]]
        with pytest.raises(Exception, match=r"of 3 parts of .* there are only 2"):
            await brought(played, tmp_path / "other")


async def test_a_split_model_whose_parts_do_not_fit_is_refused(tmp_path: Path) -> None:
    pieces = gguf_files.parts(["a.weight", "a.weight"])
    files = {f"big-Q4_0-{n:05}-of-00002.gguf": piece for n, piece in enumerate(pieces, 1)}
    async with hub(files=files) as played:
        with pytest.raises(Exception, match="the same tensor twice"):
            await brought(played, tmp_path)
    assert Store(tmp_path).every() == []


async def test_a_safetensors_repository_without_what_can_run(tmp_path: Path) -> None:
    files = {
        "config.json": b'{"model_type": "bert"}',
        "model.safetensors": safetensors(a=b"x" * 6000),
        "tokenizer.json": b"{}",
        "vocab.txt": b"a\nb",
        "pytorch_model.bin": b"x" * 9000,
        "modeling_x.py": b"import os",
        "training_args.pt": b"x",
        "onnx/model.safetensors": safetensors(a=b"y"),
    }
    async with hub(files=files) as played:
        manifest = await brought(played, tmp_path)
    assert (manifest.format, manifest.variant) == ("safetensors", "safetensors")
    assert {f.name for f in manifest.files} == {
        "config.json", "model.safetensors", "tokenizer.json", "vocab.txt"
    }  # fmt: skip


async def test_a_repository_of_pickles_is_refused(tmp_path: Path) -> None:
    async with hub(files={"pytorch_model.bin": b"x", "config.json": b"{}"}) as played:
        with pytest.raises(Exception, match="neither GGUF nor safetensors"):
            await brought(played, tmp_path)


async def test_wrong_bytes_never_get_a_name(tmp_path: Path) -> None:
    async with hub() as played:
        played.faults.liar = {"tiny-Q4_K_M.gguf"}
        with pytest.raises(PullFailed, match="not what was promised"):
            await brought(played, tmp_path)
        assert list(Store(tmp_path).blobs.every()) == []
        assert leftovers(tmp_path) == []
        played.faults.liar = set()
        await brought(played, tmp_path)


async def test_a_small_file_with_wrong_bytes_is_refused_too(tmp_path: Path) -> None:
    files = {"config.json": b'{"a": 1}', "model.safetensors": safetensors(a=b"x" * 6000)}
    async with hub(files=files) as played:
        played.faults.liar = {"config.json"}
        with pytest.raises(PullFailed, match=r"config\.json: what came is not what was promised"):
            await brought(played, tmp_path)
    assert Store(tmp_path).every() == []


async def test_a_damaged_part_from_before_is_fetched_anew(tmp_path: Path) -> None:
    """The part that an earlier pull left is wrong: one more try, from the start."""
    store = Store(tmp_path)
    partial = store.blobs.partial_path(f"sha256 {hashlib.sha256(BIG).hexdigest()}")
    partial.write_bytes(b"\0" * 1_000_000)
    async with hub() as played:
        manifest = await brought(played, tmp_path)
    assert store.weights_path(manifest).read_bytes() == BIG


async def test_a_header_that_lies_is_refused_before_it_has_a_name(tmp_path: Path) -> None:
    broken = bytearray(gguf_files.whole(8000))
    broken[16:24] = (2**40).to_bytes(8, "little")
    async with hub(files={"t-Q4_0.gguf": bytes(broken)}) as played:
        with pytest.raises(Exception, match=r"t-Q4_0\.gguf: .* are too many"):
            await brought(played, tmp_path)
    assert list(Store(tmp_path).blobs.every()) == []


@pytest.mark.parametrize(
    ("repo", "name", "token", "says"),
    [
        ({"gated": True}, f"hf:{REPO}", None, "is gated: accept its conditions at .*--token"),
        ({"private": True}, f"hf:{REPO}", None, "no repository acme/tiny-GGUF .*or it is private"),
        ({}, "hf:acme/none", "hf_good", "no repository acme/none"),
        ({}, f"hf:{REPO}@v9", None, "has no revision 'v9'"),
        ({}, f"hf:{REPO}", "hf_bad_token", "does not know the token"),
    ],
)
async def test_what_the_hub_refuses_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    repo: dict[str, object],
    name: str,
    token: str | None,
    says: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with hub(**repo) as played:
        with pytest.raises(PullFailed, match=says) as caught:
            await brought(played, tmp_path, name, token=token)
    assert token is None or token not in str(caught.value) + caplog.text


@pytest.mark.parametrize("repo", [{"gated": True}, {"private": True}])
async def test_the_users_token_opens(tmp_path: Path, repo: dict[str, object]) -> None:
    async with hub(**repo) as played:
        manifest = await brought(played, tmp_path, token="hf_good")
        assert not any("authorization" in a.headers for a in played.asked if "/cdn/" in a.path)
    assert manifest.variant == "Q4_K_M"
    assert "hf_good" not in "".join(p.read_text() for p in (tmp_path / "manifests").iterdir())


async def test_no_network_is_said(tmp_path: Path) -> None:
    async with hub() as played:
        endpoint = played.endpoint
    with pytest.raises(PullFailed, match=r"cannot be reached \(ConnectError\).*import-bundle"):
        pull(Store(tmp_path), HubSettings(endpoint), parse_hub(f"hf:{REPO}"))


@pytest.mark.parametrize(("status", "says"), [(403, "may not read"), (503, "status 503")])
async def test_a_hub_out_of_order(tmp_path: Path, status: int, says: str) -> None:
    async with hub() as played:
        played.faults.status = status
        with pytest.raises(PullFailed, match=says):
            await brought(played, tmp_path)


async def test_room_is_looked_for_before_anything_is_downloaded(tmp_path: Path) -> None:
    """The Hub says that the file has a petabyte: no disk has room for that."""
    async with hub() as played:
        sibling = played._sibling

        def lying(repo: Repo, name: str) -> dict[str, object]:
            return {
                **sibling(repo, name),
                "lfs": {"sha256": "0" * 64, "size": 10**15, "pointerSize": 1},
            }

        played._sibling = lying  # type: ignore[method-assign]
        with pytest.raises(PullFailed, match=r"needs .* GB more .* are free"):
            await brought(played, tmp_path)
        assert played.sent_bytes == 0


async def test_the_played_hub_is_what_the_client_takes_for_the_hub(tmp_path: Path) -> None:
    """The client's own download, which nothing here uses, works with it too."""
    from huggingface_hub import HfApi, hf_hub_download

    async with hub() as played:
        name = await asyncio.to_thread(
            hf_hub_download,
            REPO, "tiny-Q4_K_M.gguf", endpoint=played.endpoint, cache_dir=tmp_path, token=False,
        )  # fmt: skip
        assert hashlib.sha256(await asyncio.to_thread(Path(name).read_bytes)).digest() == (
            hashlib.sha256(BIG).digest()
        )
        info = await asyncio.to_thread(HfApi(played.endpoint, token=False).model_info, REPO)
        assert {s.rfilename for s in info.siblings or []} == set(FILES)


async def test_nobody_is_told_of_it(tmp_path: Path) -> None:
    """Nothing but the two kinds of requests that a pull needs; no token that was not given."""
    async with hub() as played:
        with contextlib.suppress(KeyError):
            del os.environ["HF_TOKEN"]
        await brought(played, tmp_path)
        for asked in played.asked:
            assert asked.path.startswith(("/api/models/acme/", f"/{REPO}/resolve/", "/cdn/"))
            assert "authorization" not in asked.headers
