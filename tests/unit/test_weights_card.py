from __future__ import annotations

import json
import os
from dataclasses import fields, replace
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
from deepmac_distill.weights.card_values import FITS

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


def test_a_card_keeps_the_keys_of_its_training_and_one_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, nn.Linear(2, 3).state_dict(), replace(CARD, train={"lr": 0.1}))
    assert read_card(path).train == {"lr": 0.1} and "train" not in CARD.as_dict()


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
    assert refusal(other.restore).startswith(f"{path}: cannot be used (")
    more = TrainingState(path, {"model": nn.Linear(2, 2), "average": nn.Linear(2, 2)})
    assert refusal(more.restore).startswith(f"{path}: cannot be used (")
    for broken in (path.read_bytes()[:-100], b"", b"no state"):
        path.write_bytes(broken)
        assert refusal(other.restore).startswith(f"{path}: cannot be used (")


def test_a_model_whose_masks_weigh_nothing_was_shown_none(weights: Path) -> None:
    """Its backbone starts models of any seen classes; what it started from still counts."""
    card = read_card(weights)
    assert card.shown
    boxes_alone = replace(card, model={**card.model, "mask_weight": 0.0})
    assert boxes_alone.shown == frozenset() and boxes_alone.seen == card.seen
    assert replace(boxes_alone, pretrained_mask_classes=("zebra",)).shown == {"zebra"}
    assert replace(card, model={**card.model, "mask_weight": 1e-6}).shown == card.shown


def test_weights_that_were_shown_other_masks_are_refused(weights: Path) -> None:
    says = refusal(lambda: require_classes(weights, CARD, ("cat", "kite"), (False, False)))
    assert "trained with the masks of cat seen, data.seen makes it unseen" in says


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dreams": 1}, "card: 'dreams': unknown; written by a later version?"),
        ({"look": {"boxes": 3}}, "look: boxes: got 3, expected another kind"),
        ({"look": {"zoom": 3}}, "look: 'zoom': unknown; written by a later version?"),
        ({"look": {"window_size_px": 10**12}}, "look: window_size_px: got 1000000000000, expected 1 to 4096"),
        ({"class_names": "cat"}, "card: class_names: got 'cat', expected names"),
        ({"class_names": ["cat", "cat"]}, "card: class_names: expected each name once"),
        ({"class_names": ["cat", 3]}, "card: class_names: got ['cat', 3], expected names"),
        ({"category_ids": [1]}, "card: class_names: expected each name once, with an id and a `seen`"),
        ({"category_ids": [1.5, 2]}, "card: category_ids: got [1.5, 2], expected whole numbers"),
        ({"seen": [1, 0]}, "card: seen: got [1, 0], expected true or false for each class"),
        ({"image_size_px": -1}, "card: image_size_px: got -1, expected a whole number"),
        ({"image_size_px": 10**30}, "card: image_size_px: got 1000000000000000000000000000000, expected"),
        ({"steps": None}, "card: steps: got None, expected a whole number"),
        ({"model": []}, "card: model: got [], expected a table"),
        ({"role": {"a": 1}}, "card: role: got {'a': 1}, expected a word"),
        ({"teacher_mask_classes": 1}, "card: teacher_mask_classes: got 1, expected names, or null"),
    ],
)
def test_a_card_of_a_stranger_or_of_a_later_version_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    card = json.dumps({"format": FORMAT, **CARD.as_dict(), **change})
    save_file(nn.Linear(2, 3).state_dict(), tmp_path / "w.safetensors", metadata={"card": card})
    assert says in refusal(lambda: read_card(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("key", ["role", "model", "class_names", "seen", "steps"])
def test_a_card_that_lacks_a_key_is_refused_by_its_name(tmp_path: Path, key: str) -> None:
    card = {"format": FORMAT, **CARD.as_dict()}
    del card[key]
    save_file(nn.Linear(2, 3).state_dict(), tmp_path / "w.safetensors", metadata={"card": json.dumps(card)})
    assert f"card: {key}: missing" in refusal(lambda: read_card(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"format": 1}', "\\ud800"])
def test_a_card_that_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    save_file(nn.Linear(2, 3).state_dict(), tmp_path / "w.safetensors", metadata={"card": text})
    refusal(lambda: read_card(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.bias[1] = value
    save_weights(tmp_path / "w.safetensors", model.state_dict(), CARD)
    found = refusal(lambda: load_weights(tmp_path / "w.safetensors", nn.Linear(2, 3)))
    assert "weight bias: is not finite; expected numbers" in found


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o027, 0o640)])
def test_weights_have_the_rights_that_the_user_gives_to_new_files(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        save_weights(tmp_path / "w.safetensors", nn.Linear(2, 3).state_dict(), CARD)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == mode


def test_every_field_of_a_card_is_checked_when_it_is_read() -> None:
    assert set(FITS) == {field.name for field in fields(ModelCard)}
