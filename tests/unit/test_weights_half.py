"""Weights files in half precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from deepmac_distill.errors import CheckpointError
from deepmac_distill.weights.card import ModelCard, load_weights, read_card, save_weights
from deepmac_distill.weights.half import write_half
from deepmac_distill.weights.transfer import load_partially, read_weights

CARD = ModelCard(
    role="teacher",
    model={"backbone": "tiny"},
    class_names=("cat",),
    category_ids=(1,),
    seen=(True,),
    image_size_px=64,
    steps=3,
    data_sha256="0" * 64,
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    model = network()
    model[1].running_var.fill_(1e-9)  # nothing in half precision
    save_weights(tmp_path / "whole.safetensors", model.state_dict(), CARD)
    return tmp_path / "whole.safetensors"


def test_kernels_are_halved_and_vectors_are_not(whole: Path, tmp_path: Path) -> None:
    write_half(whole, tmp_path / "half.safetensors", "for a test")
    before, after = load_file(whole), load_file(tmp_path / "half.safetensors")
    assert {name for name, tensor in after.items() if tensor.dtype == torch.float16} == {
        "0.weight",
        "2.weight",
    }
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor.half() if tensor.ndim > 1 else tensor)
    card = read_card(tmp_path / "half.safetensors")
    assert card.about == "for a test" and card.model == CARD.model
    assert "about" not in read_card(whole).as_dict()  # cards without it stay as they were


def test_a_loaded_model_is_float32_whichever_way_it_is_loaded(whole: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    write_half(whole, half, "")
    for load in (
        lambda model: load_weights(half, model),
        lambda model: load_partially(model, read_weights(half), "half"),
    ):
        model = network()
        load(model)
        assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.int64}
        assert torch.equal(model[0].weight, load_file(whole)["0.weight"].half().float())
        assert torch.equal(model[1].running_var, torch.full((4,), 1e-9))


def test_the_bytes_depend_on_weights_card_and_text_alone(whole: Path, tmp_path: Path) -> None:
    for name in "abc":
        write_half(whole, tmp_path / name, "the same" if name != "c" else "another")
    first, second, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == second != other
    write_half(tmp_path / "a", tmp_path / "again", "the same")
    assert (tmp_path / "again").read_bytes() == first


def test_a_kernel_without_a_finite_half_is_refused_by_name(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[2].weight[0, 0] = 7e4
    save_weights(tmp_path / "w.safetensors", model.state_dict(), CARD)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: weight 2\.weight: got 7e\+04, expected"):
        write_half(tmp_path / "w.safetensors", tmp_path / "half.safetensors", "")
    assert not (tmp_path / "half.safetensors").exists()
