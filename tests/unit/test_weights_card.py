from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deepmac_distill.errors import CheckpointError
from deepmac_distill.look import Look
from deepmac_distill.training.checkpoint import TrainingState
from deepmac_distill.weights.card import (
    FORMAT,
    ModelCard,
    load_weights,
    read_card,
    require_classes,
    save_weights,
)

CARD = ModelCard(
    role="teacher",
    model={"backbone": "tiny", "pyramid_channels": [8, 4, 4]},
    class_names=("cat", "kite"),
    category_ids=(1, 7),
    seen=(True, False),
    image_size_px=64,
    steps=3,
    data_sha256="0" * 64,
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_weights(tmp_path / "w.safetensors", nn.Linear(2, 3).state_dict(), CARD)
    return tmp_path / "w.safetensors"


def refusal(work) -> str:
    with pytest.raises(CheckpointError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_and_card_come_back_as_they_were(tmp_path: Path) -> None:
    source, target = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    source.running_mean.fill_(5)
    source.num_batches_tracked.fill_(9)
    save_weights(tmp_path / "w.safetensors", source.state_dict(), CARD)
    load_weights(tmp_path / "w.safetensors", target)
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())
    assert read_card(tmp_path / "w.safetensors") == replace(CARD)


def test_a_card_says_how_the_model_looks_and_one_of_an_earlier_version_means_whole_images(
    tmp_path: Path,
) -> None:
    path, look = tmp_path / "w.safetensors", Look(boxes="by-size", window_context=2.0, mirror=True)
    save_weights(path, nn.Linear(2, 3).state_dict(), replace(CARD, look=look))
    assert read_card(path).look == look
    assert "look" not in CARD.as_dict()  # as those that were written before there were windows
    save_weights(path, nn.Linear(2, 3).state_dict(), CARD)
    assert read_card(path).look == Look()


def test_a_look_that_this_version_does_not_know_is_refused(tmp_path: Path) -> None:
    for look, says in (({"zoom": 2}, "zoom"), ({"window_context": 0.5}, "window_context: got 0.5")):
        card = json.dumps({"format": FORMAT, **CARD.as_dict(), "look": look})
        save_file(nn.Linear(2, 3).state_dict(), tmp_path / "w.safetensors", metadata={"card": card})
        found = refusal(lambda: read_card(tmp_path / "w.safetensors"))
        assert "w.safetensors: look: " in found and says in found


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    for name in map(str, range(16)):  # more than once: an order drawn by chance would be found out
        save_weights(tmp_path / name, dict(reversed(state.items())) if name == "1" else state, CARD)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_weights_of_another_architecture_are_refused_by_the_first_tensor(weights: Path) -> None:
    says = refusal(lambda: load_weights(weights, nn.Linear(4, 3)))
    assert says == f"{weights}: weight weight: got (3, 2), expected (3, 4); another architecture?"
    says = refusal(lambda: load_weights(weights, nn.Linear(2, 3, bias=False)))
    assert "weight bias: got (3,), expected nothing" in says
    says = refusal(lambda: load_weights(weights, nn.Sequential(nn.Linear(2, 3))))
    assert "weight 0.bias: got nothing, expected (3,)" in says


def test_what_is_no_weights_file_of_ours_is_refused_by_name(tmp_path: Path) -> None:
    assert "no such file; expected weights" in refusal(lambda: read_card(tmp_path / "nowhere"))
    assert "no such file; expected weights" in refusal(lambda: read_card(tmp_path))
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "w.pth")
    assert "w.pth: not a safetensors file" in refusal(lambda: read_card(tmp_path / "w.pth"))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "other.safetensors: format None, expected" in refusal(
        lambda: read_card(tmp_path / "other.safetensors")
    )


def test_a_truncated_weights_file_is_refused_by_name(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-4])
    assert "w.safetensors: not a safetensors file" in refusal(lambda: read_card(weights))


def test_weights_of_other_classes_are_refused_with_the_class_that_differs(weights: Path) -> None:
    require_classes(weights, CARD, ("cat", "kite"), (True, False))
    says = refusal(lambda: require_classes(weights, CARD, ("cat", "kite", "owl"), (True, False, False)))
    assert "trained on 2 classes, the data has 3; the model lacks owl" in says
    assert "the model adds kite" in refusal(lambda: require_classes(weights, CARD, ("cat",), (True,)))
    assert "in another order" in refusal(
        lambda: require_classes(weights, CARD, ("kite", "cat"), (False, True))
    )


def test_a_training_state_comes_back_with_the_random_numbers_that_follow(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    state = TrainingState(tmp_path / "state.pt", {"model": model, "optimizer": optimizer})
    assert state.restore() == 0
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    state.save(7)
    drawn = torch.rand(3)
    model.weight.data.zero_()
    optimizer.state.clear()
    assert state.restore() == 7
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())
    assert optimizer.state[model.weight]["step"] == 1


def test_a_state_of_another_model_or_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    TrainingState(path, {"model": nn.Linear(2, 2)}).save(1)
    other = TrainingState(path, {"model": nn.Linear(3, 2)})
    assert refusal(other.restore).startswith(f"{path}: cannot resume: ")
    more = TrainingState(path, {"model": nn.Linear(2, 2), "average": nn.Linear(2, 2)})
    assert refusal(more.restore).startswith(f"{path}: cannot resume: ")
    for broken in (path.read_bytes()[:-100], b"", b"no state"):
        path.write_bytes(broken)
        assert refusal(other.restore).startswith(f"{path}: cannot resume: ")


def test_weights_that_were_shown_other_masks_are_refused(weights: Path) -> None:
    says = refusal(lambda: require_classes(weights, CARD, ("cat", "kite"), (False, False)))
    assert "trained with the masks of cat seen, data.seen makes it unseen" in says
