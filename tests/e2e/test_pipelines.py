"""Every pipeline file that ships is parsed, built, stepped once, and asked for masks and boxes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepmac_distill.annotations.coco import read_coco
from deepmac_distill.config import RoleConfig, load_pipeline
from deepmac_distill.data.augment import training_views
from deepmac_distill.data.dataset import BoxDataset
from deepmac_distill.data.loader import training_batches
from deepmac_distill.data.synthetic import SEEN_SHAPES, write_scenes
from deepmac_distill.models.build import build_model
from deepmac_distill.training.loop import make_optimizer

PIPELINES = sorted((Path(__file__).parents[2] / "pipelines").rglob("*.toml"))
REDUCED_PX = 128  # a canvas that every backbone takes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, images=2, seed=0, size_px=64)
    return folder


def test_there_are_pipelines() -> None:
    assert PIPELINES


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_pipeline_builds_and_steps(path: Path, role: str, scenes: Path) -> None:
    pipeline = load_pipeline(path)
    assert "Command:" in pipeline.purpose, (
        "a pipeline file opens with its claim, command, cost and expectation"
    )
    recipe: RoleConfig = getattr(pipeline, role)
    annotations = read_coco(scenes / "instances.json", SEEN_SHAPES)
    model = build_model(recipe.model, len(annotations.classes), load_weights=True)
    dataset = BoxDataset(
        annotations,
        scenes / "images",
        mask_size=model.target_size,
        view_of=training_views(REDUCED_PX, recipe.train.scale_range),
    )
    batch = next(training_batches(dataset, 2, seed=0))
    optimizer = make_optimizer(model, recipe.train.optimizer, recipe.train.lr, recipe.train.weight_decay)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    torch.stack(list(model(batch).values())).sum().backward()
    optimizer.step()
    assert any(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    model.eval()
    masks = model.segment(batch.images, batch.instances)
    assert len(masks) == len(batch.instances) and masks.isfinite().all()
    if model.detection:
        assert model.detect(batch.images, batch.image_sizes).boxes.isfinite().all()
