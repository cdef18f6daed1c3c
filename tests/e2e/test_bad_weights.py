"""Weights that cannot be used: code 2 and one line; and what their card holds."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.models.build import build_model
from deepmac_distill.weights.card import read_card, save_weights
from refusals import assert_refused


def weights_of_another_kind(kind: str, source: Path, path: Path) -> None:
    match kind:
        case "missing":
            return
        case "empty":
            path.write_bytes(b"")
        case "pickled":
            torch.save({"a": torch.zeros(1)}, path)
        case "of somebody else":
            save_file({"a": torch.zeros(1)}, path)
        case "truncated":
            path.write_bytes(source.read_bytes()[:-10])
        case "another architecture":
            card = read_card(source)
            save_weights(
                path, {"backbone.a": torch.zeros(1)}, replace(card, model=card.model | {"mask_width": 4})
            )
        case "an unknown model":
            save_weights(path, {}, replace(read_card(source), model={"backbone": "unheard of"}))


WEIGHTS = [
    ("missing", "no such file; expected "),
    ("empty", "not a safetensors file"),
    ("pickled", "not a safetensors file"),
    ("of somebody else", "format None, expected 'deepmac-distill weights 1'"),
    ("truncated", "not a safetensors file"),
    ("another architecture", "weight backbone.a: got (1,), expected nothing; another architecture?"),
    ("an unknown model", "model.backbone: got 'unheard of'"),
]


@pytest.mark.parametrize(("kind", "says"), WEIGHTS)
@pytest.mark.parametrize("command", ["pseudolabel", "evaluate", "predict"])
def test_weights_that_cannot_be_used_are_refused_by_name(
    chain, deepmac, tmp_path: Path, command: str, kind: str, says: str
) -> None:
    weights = tmp_path / "w.bin"
    weights_of_another_kind(kind, chain[0] / "teacher" / "weights.safetensors", weights)
    scenes = chain[0] / "scenes-val"
    data, seen = [scenes / "instances.json", scenes / "images"], ["--seen", ",".join(SEEN_SHAPES)]
    given = {
        "pseudolabel": ["--model", weights, "--annotations", data[0], "--images", data[1], *seen],
        "evaluate": ["--model", weights, "--val-annotations", data[0], "--val-images", data[1], *seen],
        "predict": [scenes / "images" / "000001.png", "--box", "1,1,9,9", "--model", weights],
    }[command]
    ended = deepmac(command, *given, "--out", tmp_path / "run")
    assert ended.code == 2, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("deepmac: ") and "w.bin" in last and says in last
    assert list(tmp_path.rglob("done.json")) == [] and ended.out == ""


def test_masks_that_belong_to_other_classes_are_refused_with_a_class_that_is_lacking(
    chain, teach, tmp_path: Path
) -> None:
    weights = tmp_path / "a mask for each class.safetensors"
    recipe = MaskRcnnConfig(
        backbone="tiny",
        backbone_width=8,
        fpn_channels=8,
        mask_channels=8,
        box_channels=8,
        anchor_sizes=(8, 16, 32, 64),
    )
    card = read_card(chain[0] / "teacher" / "weights.safetensors")
    model = build_model(recipe, len(card.class_names), load_weights=False)
    save_weights(weights, model.state_dict(), replace(card, model=asdict(recipe)))
    ended = teach("--model", str(weights), command="pseudolabel")
    weights.unlink()
    assert_refused(ended, "trained on 12 classes, the data has 2; the model lacks cat, kite", tmp_path)
    assert "expected boxes of its classes, or weights of a class-agnostic mask head" in ended.err


def test_a_model_card_has_every_key_of_a_model(chain) -> None:
    card = read_card(chain[0] / "teacher" / "weights.safetensors")
    implied = {"lattice"}  # named only where it is not the default, so that cards stay as they were
    assert card.model.keys() == set(DeepMacConfig.__dataclass_fields__) - implied
