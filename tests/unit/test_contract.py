"""The spec of a model, and the images as it wants them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepmac_distill import made_with
from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.data.framed import images_at_once
from deepmac_distill.data.frames import view_for
from deepmac_distill.files import sha256_of_file
from deepmac_distill.models import load
from deepmac_distill.weights.card import read_card


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mask_size": 0}, "mask_size: got 0, expected at least 1"),
        ({"size_divisibility": 0}, "size_divisibility: got 0, expected at least 1"),
        (
            {"input_size_px": 100, "size_divisibility": 32},
            "input_size_px: got 100, expected a multiple of 32",
        ),
        ({"lattice": "corners"}, "lattice: got 'corners', expected one of centers, reference"),
        ({"lattice": "reference", "mask_size": 1}, "mask_size: got 1, expected 2 or more on reference"),
        ({"identity": ""}, "identity: got nothing"),
    ],
)
def test_a_spec_out_of_range_is_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModelSpec(**({"mask_size": 8, "input_size_px": None, "identity": "x"} | values))


def test_a_model_that_answers_every_box_says_so() -> None:
    masks = SegmentedMasks.of(torch.zeros(3, 2, 2))
    assert masks.answered.tolist() == [True] * 3 and masks.iou is None


def test_a_model_without_a_size_gets_images_as_they_are_one_by_one() -> None:
    spec = ModelSpec(mask_size=8, input_size_px=None, size_divisibility=32, identity="x")
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    view = view_for(spec, 40, 50)
    canvas = view.image(image)
    assert canvas.shape == (3, 64, 64) and view.fit == (40, 50)
    assert torch.equal(canvas[:, :40, :50], image) and not canvas[:, 40:].any()
    assert images_at_once(spec, 8) == 1


def test_a_model_with_a_size_gets_the_longer_side_scaled_to_it() -> None:
    spec = ModelSpec(mask_size=8, input_size_px=100, identity="x")
    view = view_for(spec, 40, 50)
    assert view.fit == (80, 100) and view.size_px == 100 and images_at_once(spec, 8) == 8


def test_a_stage_hashes_the_weights_and_reads_their_card_once(chain, deepmac, monkeypatch) -> None:
    """A stage that is done, so that nothing else reads them."""
    read: list[str] = []

    def hashed(path: Path) -> str:
        read.extend(["hash"] * (path.name == "weights.safetensors"))
        return sha256_of_file(path)

    def carded(path: Path) -> object:
        read.append("card")
        return read_card(path)

    monkeypatch.setattr(load, "sha256_of_file", hashed)
    monkeypatch.setattr(made_with, "sha256_of_file", hashed)
    monkeypatch.setattr(load, "read_card", carded)
    assert deepmac("evaluate", "teacher", "--out", chain[0]).code == 0
    assert sorted(read) == ["card", "hash"]
