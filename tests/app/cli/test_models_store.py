"""``turnpike models pull … import-bundle`` as a person types them."""

import asyncio
from pathlib import Path

import pytest

from app.cli.models_store import refusals_told
from local_runtime.store.blobs import StoreError
from tests.app.cli.terminal import Inside, Turnpike
from tests.local_runtime.store import gguf_files
from tests.upstreams.hub import PlayedHub, Repo

REPO = "acme/tiny-GGUF"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-Q4_0.gguf"
    path.write_bytes(gguf_files.whole(2000))
    return path


def test_from_import_to_prune(inside: Inside, model: Path) -> None:
    assert inside.json("models", "list", "--store") == []
    said = inside.out("models", "import", str(model), "--name", "acme/tiny")
    assert said.startswith("acme/tiny:Q4_0 is here")
    assert 'source = "store:acme/tiny:Q4_0"' in said
    (line,) = inside.json("models", "list", "--store")
    assert (line["name"], line["bytes"]) == ("acme/tiny:Q4_0", model.stat().st_size)
    shown = inside.json("models", "show", "acme/tiny", "--check")
    assert shown["facts"]["context_length"] == 2048
    assert shown["facts"]["parameters"] == 2000
    assert "Architecture:   llama" in inside.out("models", "show", "acme/tiny")
    assert "Freed 0 B in 0 files" in inside.out("models", "prune", "--older-than", "0")
    assert "Removed acme/tiny:Q4_0" in inside.out("models", "rm", "acme/tiny")
    assert inside.json("models", "list", "--store") == []


def test_what_changed_since_is_found(inside: Inside, model: Path) -> None:
    inside.out("models", "import", str(model), "--link")
    (blob,) = (inside.data_dir / "models" / "blobs").iterdir()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert "is not what it was" in inside.refused("models", "show", "tiny", "--check")


def test_refusals_say_what_to_do(inside: Inside, model: Path) -> None:
    assert "hf:ORG/REPO" in inside.refused("models", "pull", "acme/tiny")
    assert "models list --store" in inside.refused("models", "show", "acme/none")
    assert "there is no file" in inside.refused("models", "import", "/nowhere.gguf")
    assert "is not the name of a model" in inside.refused(
        "models", "import", str(model), "--name", "../x"
    )
    for name in ("Q4_0", "Q8_0"):
        inside.out("models", "import", str(model), "--name", f"two:{name}")
    assert "say which, as two:Q4_0" in inside.refused("models", "rm", "two")


def test_a_token_is_never_written_on_the_command_line(inside: Inside) -> None:
    refused = inside.refused("models", "pull", "hf:a/b", "--token", "hf_secret")
    assert "env:NAME" in refused and "hf_secret" not in refused


def test_a_bundle_goes_from_one_site_to_another(
    inside: Inside, model: Path, tmp_path: Path, config_file: Path
) -> None:
    inside.out("models", "import", str(model))
    bundle = str(tmp_path / "models.tar")
    assert "--make-key" in inside.refused("models", "bundle", bundle, "tiny")
    key = inside.run("models", "bundle", "--make-key")
    assert (key.returncode, "stays secret" in key.stderr) == (0, True)
    assert "Wrote 1 model" in inside.out("models", "bundle", bundle, "tiny")
    assert "is there already" in inside.refused("models", "bundle", bundle, "tiny")
    there = Inside(tmp_path / "there", config_file)
    assert "not trusted here" in there.refused("models", "import-bundle", bundle)
    assert "64 hex digits" in there.refused("models", "import-bundle", bundle, "--trust-key", "x")
    public = key.stdout.strip()
    assert "tiny:Q4_0 is here" in there.out(
        "models", "import-bundle", bundle, "--trust-key", public
    )
    there.out("models", "rm", "tiny")
    text = config_file.read_text()
    config_file.write_text(f'{text}\n[local.hub]\ntrusted_keys = ["{public}"]\n')
    assert "tiny:Q4_0 is here" in there.out("models", "import-bundle", bundle)


async def test_a_pull(
    inside: Inside, turnpike: Turnpike, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        f"tiny-{name}.gguf": gguf_files.whole(3000, seed=n)
        for n, name in enumerate(("Q8_0", "Q4_0"))
    }
    async with PlayedHub({REPO: Repo(files, gated=True)}) as hub:
        with config_file.open("a") as file:
            file.write(f'\n[local.hub]\nendpoint = "{hub.endpoint}"\n')
        monkeypatch.delenv("HF_TOKEN", raising=False)
        refused = await asyncio.to_thread(inside.refused, "models", "pull", f"hf:{REPO}")
        assert "is gated" in refused and "--token env:HF_TOKEN" in refused
        monkeypatch.setenv("MY_TOKEN", "hf_good")
        pull = ("models", "pull", f"hf:{REPO}", "--token", "env:MY_TOKEN")
        shown = await asyncio.to_thread(turnpike.on_terminal, *pull)
        assert f"{REPO}:Q4_0 is here" in shown and "hf_good" not in shown
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        said = await asyncio.to_thread(inside.out, "models", "pull", f"hf:{REPO}:q8_0")
        assert f"{REPO}:Q8_0 is here" in said
    told = inside.refused("models", "pull", f"hf:{REPO}:Q8_0")
    assert "cannot be reached" in told
    names = [line["name"] for line in inside.json("models", "list", "--store")]
    assert names == [f"{REPO}:Q4_0", f"{REPO}:Q8_0"]


def test_words_of_the_store_become_the_commands_own() -> None:
    with pytest.raises(Exception, match=r"^no room\.$"), refusals_told():
        raise StoreError("no room")
