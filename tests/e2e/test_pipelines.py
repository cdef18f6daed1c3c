"""Every pipeline file that ships is parsed, built, stepped once, and asked for masks and boxes.

Those of the paper are too large to step on a CPU: at full width they are built without memory, and held to
the published numbers of parameters; a narrow copy of the same structure is stepped.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepmac_distill.config import DeepMacConfig, ModelConfig, Pipeline, RoleConfig, load_pipeline
from deepmac_distill.data.augment import training_views
from deepmac_distill.data.dataset import AnnotatedImages, BoxDataset
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.loader import training_batches
from deepmac_distill.data.synthetic import SEEN_SHAPES, write_scenes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.models.build import build_model
from deepmac_distill.training.loop import make_optimizer
from deepmac_distill.training.schedule import make_schedule

FOLDER = Path(__file__).parents[2] / "src" / "deepmac_distill" / "recipes"
PIPELINES = sorted(FOLDER.rglob("*.toml"))
PAPER = sorted((FOLDER / "paper").glob("*.toml"))
REDUCED_PX = 128  # a canvas that every backbone takes
WIDTHS = {  # every key that makes a model wide or its work long; what is missing here stays as it is
    "backbone_width": 8,
    "head_channels": 8,
    "mask_width": 8,
    "fpn_channels": 8,
    "mask_channels": 8,
    "box_channels": 8,
    "proposals": 50,
    "sampled_proposals": 32,
}
# Counted from the published structure; with its heads the backbone is the 191 million known of CenterNet.
HEAD_PARAMETERS = {"hourglass-52": 23_454_593, "hourglass-100": 47_221_121, "resnet-4": 529_217}
BACKBONE_PARAMETERS = {"hourglass-52": 93_662_848, "hourglass-104": 187_700_352}
MASK_RCNN_PARAMETERS = {
    "resnet50": 44_402_996,  # 44.4 million in torchvision too
    "spinenet-143": 77_805_906,  # 60.5 million of the backbone, as published, and 17 of the branches
}
SPINENET_PX = 1280
ABLATIONS_PX = 512  # of table 7; the best models have 1024


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, images=2, seed=0, size_px=64)
    return folder


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


def narrowed(model: ModelConfig) -> ModelConfig:
    """The same architecture, backbone, mask head and settings, but narrow and without fetched weights."""
    own = {item.name for item in dataclasses.fields(model)}
    widths = {name: value for name, value in WIDTHS.items() if name in own}
    return replace(model, **widths, backbone_weights="none")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_there_are_pipelines() -> None:
    assert PAPER and set(PAPER) < set(PIPELINES)


@pytest.mark.parametrize("path", PIPELINES, ids=name_of)
def test_a_pipeline_opens_with_its_claim(path: Path) -> None:
    purpose = load_pipeline(path).purpose
    for word in ("Command:", "Cost:", "Expected"):
        assert word in purpose, f"{word} a pipeline file opens with its claim, command, cost and expectation"


@pytest.mark.parametrize("path", PIPELINES, ids=name_of)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_pipeline_builds_and_steps(path: Path, role: str, scenes: Path) -> None:
    recipe: RoleConfig = getattr(load_pipeline(path), role)
    annotations = Dataset.open(scenes / "instances.json", seen=SEEN_SHAPES).for_training()
    fetched = recipe.model.backbone_weights == "imagenet"
    large = path in PAPER or fetched or recipe == Pipeline().student  # a file about its teacher alone
    stepped = narrowed(recipe.model) if large else recipe.model
    model = build_model(stepped, len(annotations.classes), load_weights=True)
    source = AnnotatedImages(annotations, ImageFolder(scenes / "images"), mask_size=model.target_mask_size)
    dataset = BoxDataset(source, training_views(REDUCED_PX, recipe.train.scale_range))
    batch = next(training_batches(dataset, 2, seed=0))
    train = recipe.train
    schedule = make_schedule(train.schedule, train.steps, train.warmup_steps, train.decay_steps)
    optimizer = make_optimizer(model, train.optimizer, train.lr * schedule(0), train.weight_decay)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    torch.stack(list(model(batch).values())).sum().backward()
    optimizer.step()
    assert any(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    model.eval()
    masks = model.segment(batch.images, batch.instances).grids
    assert len(masks) == len(batch.instances) and masks.isfinite().all()
    if model.spec.detects:
        assert model.detect(batch.images, batch.image_sizes).boxes.isfinite().all()


@pytest.mark.parametrize("path", PAPER, ids=name_of)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_model_of_the_paper_has_its_size_and_its_narrow_copy_its_structure(path: Path, role: str) -> None:
    recipe: RoleConfig = getattr(load_pipeline(path), role)
    with torch.device("meta"):
        full, narrow = (
            build_model(model, 80, load_weights=False) for model in (recipe.model, narrowed(recipe.model))
        )
    shapes = [{name: tensor.ndim for name, tensor in model.state_dict().items()} for model in (full, narrow)]
    assert shapes[0] == shapes[1]  # tensor by tensor, so that what was stepped is what is meant
    assert recipe.train.image_size_px % full.spec.size_divisibility == 0
    if isinstance(recipe.model, DeepMacConfig):
        assert parameters(full.mask_head) == HEAD_PARAMETERS[recipe.model.mask_head]
        assert parameters(full.backbone) == BACKBONE_PARAMETERS[recipe.model.backbone]
    else:
        assert parameters(full) == MASK_RCNN_PARAMETERS[recipe.model.backbone]


@pytest.mark.parametrize("path", PAPER, ids=name_of)
def test_a_file_of_the_paper_has_its_schedule(path: Path) -> None:
    pipeline = load_pipeline(path)
    for role in ("teacher", "student"):
        recipe: RoleConfig = getattr(pipeline, role)
        train, images = recipe.train, recipe.train.batch_size * recipe.train.gradient_accumulation_steps
        if recipe == Pipeline().student:
            continue  # the file is about its teacher alone
        size_px = ABLATIONS_PX if path.stem.startswith("backbone_") else 1024
        spinenet = recipe.model.backbone == "spinenet-143"
        size_px = SPINENET_PX if spinenet else size_px
        assert train.image_size_px == size_px and recipe.model.backbone_weights in ("none", "imagenet")
        if isinstance(recipe.model, DeepMacConfig):
            assert (train.optimizer, images, train.steps) == ("adam", 128, 50_000)
            assert (train.schedule, train.warmup_steps, train.lr) == ("cosine", 5_000, 1e-3)
            assert train.scale_range == (0.6, 1.3) and train.weight_decay == train.ema_decay == 0
        elif spinenet:
            assert (train.optimizer, images, train.steps) == ("sgd", 256, 231_000)
            assert (train.lr, train.decay_steps, train.warmup_steps) == (0.32, (219_450, 226_380), 2_000)
            assert recipe.model.stochastic_depth == 0.2 and train.weight_decay == 4e-5
        else:
            assert (train.optimizer, images, train.steps) == ("sgd", 64, 70_000)
            assert (train.lr, train.decay_steps, train.warmup_steps) == (0.12, (50_000, 65_000), 500)
            assert train.scale_range == (1 / 1.25, 1 / 0.8) and train.weight_decay == 4e-5


def test_files_that_share_a_teacher_agree_on_it() -> None:
    """Labels of the one are given to the student of the other."""
    for one, other in (
        ("coco_sample", "coco_sample_mask_rcnn"),
        ("paper/teacher_hg100", "paper/student_mask_rcnn_r50"),
        ("paper/teacher_hg100", "paper/student_mask_rcnn_sn143"),
    ):
        a, b = (load_pipeline(FOLDER / f"{name}.toml") for name in (one, other))
        assert (a.teacher, a.labels, a.seed, a.data) == (b.teacher, b.labels, b.seed, b.data)
