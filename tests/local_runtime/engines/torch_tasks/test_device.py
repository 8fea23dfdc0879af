"""Where and how precisely a model is computed."""

from pathlib import Path

import pytest

from local_runtime.engines.torch_tasks.serving import torch_is_here

pytestmark = pytest.mark.skipif(not torch_is_here(), reason="`make torch` installs what it needs")


def test_matrix_units_are_told_by_the_processor(tmp_path: Path) -> None:
    from local_runtime.engines.torch_tasks.device import has_matrix_units

    info = tmp_path / "cpuinfo"
    info.write_text("flags : fpu avx512_bf16 amx_tile\n")
    assert not has_matrix_units(info)
    info.write_text("model name : x\nflags : fpu amx_bf16 amx_tile\n")
    assert has_matrix_units(info)
    assert not has_matrix_units(tmp_path / "none")


@pytest.mark.parametrize(("slack", "sizes"), [(0.0, [2, 1, 1, 2]), (0.5, [3, 3]), (9.0, [6])])
def test_texts_are_grouped_by_length(slack: float, sizes: list[int]) -> None:
    from local_runtime.engines.torch_tasks.network import groups_of

    groups = groups_of([2, 2, 3, 4, 6, 6], slack)
    assert [len(each.lengths) for each in groups] == sizes
    assert groups[0].begin == 0
    assert [each.begin for each in groups][-1] == 23 - sum(groups[-1].lengths)


def test_another_precision_is_taken_only_if_it_is_faster_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from local_runtime.engines.torch_tasks import device
    from local_runtime.engines.torch_tasks.folder import read_folder
    from local_runtime.engines.torch_tasks.network import Network
    from local_runtime.engines.torch_tasks.weights import load_weights
    from tests.local_runtime.engines.torch_tasks.hub_folder import HubModel

    folder = read_folder(HubModel().write(tmp_path / "model"))
    weights = load_weights(folder.weights, folder.config, lambda _fraction: None)
    network = Network(folder.config, folder.pooling, weights)
    sample = [[5, 6, 7]] * 4
    others = [("cpu", torch.bfloat16), ("nowhere", torch.float32)]
    monkeypatch.setattr(device, "_others", lambda *, accelerate: others)
    took = {torch.float32: 1000, torch.bfloat16: 500}
    monkeypatch.setattr(device, "_token_ns", lambda network, sample: took[network.dtype])
    monkeypatch.setattr(device, "SAME", 0.9)
    chosen = device.choose(network, sample, accelerate=True)
    assert chosen.network.dtype is torch.bfloat16
    took[torch.bfloat16] = 900
    assert device.choose(network, sample, accelerate=True).network is network
    took[torch.bfloat16] = 500
    monkeypatch.setattr(device, "SAME", 1.1)  # nothing is as alike as that
    assert device.choose(network, sample, accelerate=True).network is network
