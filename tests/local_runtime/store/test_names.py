"""Names before they become parts of paths and addresses."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_runtime.store.names import (
    HubName,
    NameRefused,
    StoreName,
    checked_file,
    checked_id,
    parse_hub,
    parse_store,
    preference,
    quantisation_of,
    split_of,
)

BAD_IDS = [
    "", "/", "a/", "/a", "a/b/c", "..", "a/..", "../b", "a..b", ".a", "-a", "a b", "a\\b", "a\0",
    "a/b\n", "é", "a" * 97, "a%2Fb", "~", "a:b", "a@b", "C:/x",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_IDS)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(NameRefused):
        checked_id(text)


@pytest.mark.parametrize("text", ["a", "acme/tiny", "Org.x/Name_1-2.3", "0", "a" * 96])
def test_ids(text: str) -> None:
    assert checked_id(text) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hf:acme/tiny", HubName("acme/tiny")),
        ("hf:acme/tiny:Q4_K_M", HubName("acme/tiny", "Q4_K_M")),
        ("hf:acme/tiny:q8_0@main", HubName("acme/tiny", "q8_0", "main")),
        ("hf:acme/tiny@refs/pr/1", HubName("acme/tiny", None, "refs/pr/1")),
    ],
)
def test_names_on_the_hub(text: str, found: HubName) -> None:
    assert parse_hub(text) == found
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["acme/tiny", "hf:", "hf:a/b/c", "hf:acme/tiny:", "hf:a/b@", "hf:a/b@../x", "hf:a/b:Q4/x",
     "http://x/y", "hf:a/b:..", "hf:../../etc", "hf:a/b@a b"],
)  # fmt: skip
def test_what_is_no_name_on_the_hub(text: str) -> None:
    with pytest.raises(NameRefused):
        parse_hub(text)


def test_names_in_the_store() -> None:
    assert parse_store("store:acme/tiny:Q4_0") == StoreName("acme/tiny", "Q4_0")
    assert parse_store("tiny") == StoreName("tiny")
    for bad in ("store:", "a:", "a:b/c", "a:..", "a:b:c"):
        with pytest.raises(NameRefused):
            parse_store(bad)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("tiny-q4_k_m.gguf", "Q4_K_M"),
        ("Qwen2.5-7B-Instruct-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"),
        ("UD-Q4_K_XL/big-UD-Q4_K_XL-00001-of-00002.gguf", "UD-Q4_K_XL"),
        ("Q8_0/model-00001-of-00002.gguf", "Q8_0"),
        ("gemma-3-4b-it-IQ4_XS.gguf", "IQ4_XS"),
        ("llama-F16.gguf", "F16"),
        ("llama.fp16.gguf", "F16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("bitnet-TQ2_0.gguf", "TQ2_0"),
        ("model.gguf", None),
        ("Q-model.gguf", None),
        ("Phi-3.5-mini.gguf", None),
    ],
)
def test_what_file_names_say_of_the_quantisation(name: str, found: str | None) -> None:
    assert quantisation_of(name) == found


def test_parts() -> None:
    assert split_of("x/a-00002-of-00003.gguf") == ("x/a", 2, 3)
    assert split_of("a.gguf") == ("a", 1, 1)


def test_what_is_preferred() -> None:
    names = ["F16", "Q8_0", "IQ1_S", "Q4_0", "Q4_K_M", "Q5_K_M"]
    assert sorted(names, key=preference)[:3] == ["Q4_K_M", "Q4_0", "Q5_K_M"]


@given(st.text(max_size=40))
def test_no_file_name_leaves_its_folder(text: str) -> None:
    try:
        path = checked_file(text)
    except NameRefused:
        return
    assert not path.is_absolute() and str(path) == text
    assert not any(part.startswith(".") or ".." in part for part in path.parts)
    assert PurePosixPath("/store", path).is_relative_to("/store")
