"""`backbone_weights` from a file: refused before any work where it does not fit, and taken by its content."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture
def backbone(chain, tmp_path: Path) -> Path:
    """The backbone of a trained model in a file of its own."""
    whole = load_file(chain[0] / "teacher" / "weights.safetensors")
    state = {name.removeprefix("backbone."): t for name, t in whole.items() if name.startswith("backbone.")}
    torch.save(state, tmp_path / "backbone.pth")
    return tmp_path / "backbone.pth"


def given(role: str, weights: Path) -> list[str]:
    return ["--set", f"{role}.model.backbone_weights={weights}"]


def test_what_the_student_cannot_start_from_stops_a_run_before_its_teacher(
    scenes_toml: Path, deepmac, backbone: Path, tmp_path: Path
) -> None:
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for file, says in (("nowhere.pth", "no such file"), ("other.pth", "no tensor")):
        for command in (["run", scenes_toml], ["forecast", scenes_toml]):
            ended = deepmac(*command, "--out", tmp_path / "run", *given("student", tmp_path / file))
            assert ended.code == 2 and len(ended.err.splitlines()) == 1
            assert "student.model.backbone_weights" in ended.err and file in ended.err, says
            assert not (tmp_path / "run" / "teacher").exists()


def test_a_file_counts_by_its_content(scenes_toml: Path, deepmac, backbone: Path, tmp_path: Path) -> None:
    command = ["teach", "--config", scenes_toml, "--out", tmp_path / "run", "--set", "teacher.train.steps=1"]
    assert deepmac(*command, *given("teacher", backbone)).code == 0
    moved = backbone.rename(tmp_path / "moved.pth")
    ended = deepmac(*command, *given("teacher", moved))
    assert ended.code == 0 and "done before" in ended.err
    torch.save({name: tensor + 1 for name, tensor in torch.load(moved).items()}, moved)
    ended = deepmac(*command, *given("teacher", moved))
    assert ended.code == 2 and "made with teacher.model.backbone_weights = 'sha256:" in ended.err
