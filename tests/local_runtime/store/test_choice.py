"""Which files of a repository are taken: pure, with listings as they are on the Hub."""

import pytest

from local_runtime.store.choice import HubFile, NothingToPull, choose, variant_of


def listed(*names: str) -> list[HubFile]:
    return [HubFile(name, 1_500_000_000 + at) for at, name in enumerate(names)]


MANY = listed(
    "README.md", "config.json", "imatrix.dat", "m-BF16-00001-of-00002.gguf",
    "m-BF16-00002-of-00002.gguf", "m-IQ2_M.gguf", "m-Q4_K_S.gguf", "m-Q5_K_M.gguf",
    "m-UD-Q4_K_XL.gguf", "mmproj-m-BF16.gguf", "mmproj-m-F16.gguf", "mmproj-m-F32.gguf",
    "../../x.gguf", "x/.hidden.gguf", "run.sh", "m.Q4_K_S.gguf.part1",
)  # fmt: skip


def names(quant: str | None, *, projector: bool = True) -> list[str]:
    return [f.name for f in choose("a/b", MANY, quant, projector=projector).files]


def test_the_next_best_where_the_best_is_missing() -> None:
    assert names(None) == ["m-Q4_K_S.gguf", "mmproj-m-F16.gguf"]
    assert names(None, projector=False) == ["m-Q4_K_S.gguf"]


@pytest.mark.parametrize(
    ("quant", "first"),
    [
        ("iq2_m", "m-IQ2_M.gguf"),
        ("ud-q4_k_xl", "m-UD-Q4_K_XL.gguf"),
        ("Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
        ("m-Q5_K_M", "m-Q5_K_M.gguf"),
        ("m-q5_k_m.gguf", "m-Q5_K_M.gguf"),
        ("bf16", "m-BF16-00001-of-00002.gguf"),
    ],
)
def test_a_quantisation_by_any_of_its_names(quant: str, first: str) -> None:
    assert names(quant)[0] == first


def test_all_parts_in_order() -> None:
    assert names("BF16", projector=False) == [
        "m-BF16-00001-of-00002.gguf", "m-BF16-00002-of-00002.gguf"
    ]  # fmt: skip


def test_a_projector_is_never_the_model() -> None:
    with pytest.raises(NothingToPull, match="neither GGUF nor safetensors"):
        choose("a/b", listed("mmproj-m-F16.gguf"), None, projector=True)


@pytest.mark.parametrize("quant", ["Q8_0", "mmproj-m-F16", "../../x", "F32"])
def test_a_miss_lists_what_there_is(quant: str) -> None:
    with pytest.raises(NothingToPull, match=r"there is: Q4_K_S \(1\.5 GB\), .*BF16 \(3\.0 GB\)"):
        names(quant)


def test_files_without_a_quantisation_have_their_own_name() -> None:
    assert variant_of("tiny model!") == "tiny-model-"
    assert variant_of("..") == "default"
    assert choose("a/b", listed("tiny.gguf"), None, projector=True).variant == "tiny"


def test_safetensors_on_request_beside_gguf() -> None:
    files = listed("config.json", "model.safetensors", "m-Q4_0.gguf", "a/b/model.safetensors")
    assert choose("a/b", files, None, projector=True).format == "gguf"
    chosen = choose("a/b", files, "safetensors", projector=True)
    assert [file.name for file in chosen.files] == ["config.json", "model.safetensors"]
    with pytest.raises(NothingToPull, match=r"holds no GGUF files, so there is no Q4_0"):
        choose("a/b", files[:2], "Q4_0", projector=True)
    with pytest.raises(NothingToPull, match=r"no config\.json"):
        choose("a/b", files[1:2], None, projector=True)
