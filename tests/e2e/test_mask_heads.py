"""The comparison of mask heads on a frozen model: what learns, what is shown, and the table."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import mask_heads
from deepmac_distill.config import MaskRcnnConfig, load_pipeline
from deepmac_distill.data.loader import evaluation_batches
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.evaluation.results import read_result
from deepmac_distill.experiments.frozen_features import Frozen, Shown, images_of
from deepmac_distill.experiments.mask_head_rows import ROWS
from deepmac_distill.experiments.mask_head_table import MaskHeadFigures
from deepmac_distill.experiments.mask_heads import HeadRecipe, evaluate_heads, head_config, train_row
from deepmac_distill.inference import boxes_for
from deepmac_distill.models.build import build_model
from deepmac_distill.models.load import Weights
from deepmac_distill.weights.card import read_card, save_weights

MASK_RCNN = MaskRcnnConfig(
    backbone="tiny",
    backbone_width=8,
    class_agnostic=True,
    fpn_channels=8,
    mask_channels=8,
    box_channels=8,
    anchor_sizes=(8, 16, 32, 64),
    proposals=20,
    sampled_proposals=16,
)
SEEN = list(SEEN_SHAPES)


@pytest.fixture
def pipeline_file(chain, tmp_path: Path) -> Path:
    """The scenes of the chain as data on disk, the images of both splits in one folder each."""
    path = tmp_path / "scenes.toml"
    path.write_text(
        f"""
        threads = 1
        [data]
        root = "{chain[0]}"
        train_annotations = "scenes-train/instances.json"
        train_images = "scenes-train/images"
        val_annotations = "scenes-val/instances.json"
        val_images = "scenes-val/images"
        seen = {SEEN}
        """
    )
    return path


@pytest.fixture
def weights(chain, tmp_path: Path) -> dict[str, Path]:
    """A trained Deep-MAC, and a Mask R-CNN for the same classes."""
    deepmac = chain[0] / "teacher" / "weights.safetensors"
    card = dataclasses.replace(read_card(deepmac), model=dataclasses.asdict(MASK_RCNN))
    torch.manual_seed(0)
    model = build_model(MASK_RCNN, len(card.class_names), load_weights=False)
    save_weights(tmp_path / "mask_rcnn.safetensors", model.state_dict(), card)
    return {"deepmac": deepmac, "mask_rcnn": tmp_path / "mask_rcnn.safetensors"}


BRIEF = HeadRecipe(steps=3, batch_size=2, warmup_steps=1, views=2)
FLAGS = ["--steps", "3", "--batch-size", "2", "--warmup-steps", "1", "--views", "2"]


def frozen_of(path: Path, pipeline_file: Path) -> Frozen:
    pipeline = load_pipeline(pipeline_file)
    training, validation = (
        Dataset.open(Path(pipeline.data.root) / name, seen=SEEN)
        for name in (pipeline.data.train_annotations, pipeline.data.val_annotations)
    )
    truth = validation.for_evaluation()
    return Frozen.of(path, pipeline, training.for_training(), truth, BRIEF.views)


@pytest.mark.parametrize("name", ["resnet-4", "deep-marc-gt", "deep-marc-proposals"])
def test_only_the_mask_head_learns(
    name: str, weights: dict[str, Path], pipeline_file: Path, tmp_path: Path
) -> None:
    row = ROWS[name]
    base = frozen_of(weights[row.base], pipeline_file)
    torch.manual_seed(0)
    fresh = build_model(head_config(row, base.card.model), len(base.card.class_names), False)
    trained = train_row(row, base, BRIEF, seed=0, out=tmp_path)[0].state_dict()
    own = {key for key in trained if key.startswith("mask_head.") and key.endswith("weight")}
    assert own and all(not torch.equal(trained[key], fresh.state_dict()[key]) for key in own)
    others = trained.keys() - {key for key in trained if key.startswith("mask_head.")}
    assert others
    for key in others:  # the average of equal weights is rounded
        torch.testing.assert_close(trained[key], base.state[key], rtol=1e-5, atol=0)


def test_the_frozen_model_gives_the_masks_of_the_model_itself(
    weights: dict[str, Path], pipeline_file: Path
) -> None:
    """But for the rounding of the maps to float16."""
    base = frozen_of(weights["deepmac"], pipeline_file)
    whole = Weights.read(weights["deepmac"]).model(torch.device("cpu"))
    on_maps = Weights.read(weights["deepmac"]).model(torch.device("cpu"))
    on_maps.backbone = Shown()
    images = images_of(base.pipeline, "val")
    batches = evaluation_batches(boxes_for(base.spec, base.truth, images), 1)
    expected, got = (
        evaluate_heads(model, shown, base.truth)["iou"].to_numpy()
        for model, shown in ((whole, batches), (on_maps, base.validation_batches(on_maps.backbone)))
    )
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert np.abs(got - expected).mean() < 1e-3


def test_every_row_sees_the_same_images_and_boxes(weights: dict[str, Path], pipeline_file: Path) -> None:
    base, shown = frozen_of(weights["deepmac"], pipeline_file), Shown()
    ids, boxes, maps = [], [], []
    for size in (8, 16):
        for batch in islice(base.training_batches(shown, size, 2, seed=3), 4):
            assert batch.instances.masks.shape[-1] == size
            ids.append(batch.image_ids)
            boxes.append(batch.instances.boxes)
            maps.append(shown.maps[0])
    assert ids[:4] == ids[4:]
    assert all(torch.equal(a, b) for a, b in zip(boxes[:4] + maps[:4], boxes[4:] + maps[4:], strict=True))
    assert not torch.equal(maps[0], maps[1])


def test_rows_become_a_table(
    weights: dict[str, Path], pipeline_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kept = tmp_path / "heads", tmp_path / "heads.json"
    given = ["train", "--pipeline", str(pipeline_file), "--deepmac", str(weights["deepmac"])]
    given += ["--mask-rcnn", str(weights["mask_rcnn"]), "--out", str(out), "--seeds", "0", "1", *FLAGS]
    rows = ["resnet-4", "hourglass-20-no-encoder-decoder", "hourglass-10", "deep-marc-gt"]
    rows += ["grabcut", "grabcut-or-box"]
    assert mask_heads.main([*given, "--only", *rows]) == 0
    before = (out / "resnet-4" / "seed-1" / "ious.parquet").stat().st_mtime_ns
    capsys.readouterr()
    assert mask_heads.main([*given, "--only", *rows, "deep-marc-proposals"]) == 0
    assert (out / "resnet-4" / "seed-1" / "ious.parquet").stat().st_mtime_ns == before
    assert "seed-1: done before, skipped" in capsys.readouterr().err
    assert mask_heads.main(["table", str(out), "--json", str(kept), "--resamples", "20"]) == 0
    told, found = capsys.readouterr().out, read_result(kept, MaskHeadFigures)
    figures, costs = found.rows, found.costs
    assert figures.keys() == {*rows, "deep-marc-proposals", "box"}
    assert costs.keys() == figures.keys() - {"grabcut", "grabcut-or-box", "box"}
    assert len(figures["resnet-4"].unseen_of_each_seed) == 2
    assert len(figures["grabcut"].unseen_of_each_seed) == 1
    one, other = figures["deep-marc-gt"], figures["deep-marc-proposals"]
    assert one.against and other.against and figures["box"].against is figures["grabcut"].against is None
    assert one.against.rival == "deep-marc-proposals" and "| +7.7 (table 1) |" in told
    difference = one.against.difference.unseen.value
    assert difference == pytest.approx(one.iou.unseen - other.iou.unseen, abs=1e-9)
    assert difference == -other.against.difference.unseen.value
    assert figures["resnet-4"].training_loss > 0
    assert figures["grabcut"].misses >= figures["grabcut-or-box"].misses == 0
    assert found.made["grabcut"].inputs.keys() == {"training", "truth", "image_size_px"}
    assert found.made["grabcut-or-box"].inputs["fallback"] == "box"
    assert figures["grabcut"].training_loss is None and 0 <= one.misses <= 1
    assert found.made["hourglass-10"].inputs["steps"] == BRIEF.steps
    boxes = pq.read_table(out / "grabcut" / "seed-0" / "ious.parquet")
    assert figures["box"].iou.seen > 0 and boxes["box_baseline_iou"].null_count == 0
    assert costs["hourglass-20-no-encoder-decoder"].gmacs > 3 * costs["hourglass-10"].gmacs
    assert all(min(cost.forward_ms, cost.training_ms) > 0 for cost in costs.values())
    assert all(f"| {name} |" in told for name in figures)


def test_a_row_made_otherwise_is_refused_in_one_line(
    weights: dict[str, Path], pipeline_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--pipeline", str(pipeline_file), "--deepmac", str(weights["deepmac"])]
    given += ["--mask-rcnn", str(weights["mask_rcnn"]), "--out", str(tmp_path / "x"), "--only", "resnet-4"]
    assert mask_heads.main([*given, *FLAGS]) == 0
    assert mask_heads.main([*given, *FLAGS, "--steps", "4"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "seed-0 was made with steps = 3, now 4" in last and last.startswith("mask_heads: ")
    assert mask_heads.main([*given, *FLAGS, "--steps", "4", "--force"]) == 0


def test_rows_that_learn_nothing_need_no_weights_and_others_name_what_they_need(
    pipeline_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--pipeline", str(pipeline_file), "--out", str(tmp_path / "heads"), "--only"]
    assert mask_heads.main([*given, "grabcut-or-box"]) == 0
    assert mask_heads.main([*given, "hourglass-10"]) == 2
    refused = capsys.readouterr().err.splitlines()[-1]
    assert refused == "mask_heads: rows on a frozen deepmac: got no weights, expected --deepmac FILE"
    assert mask_heads.main(["table", str(tmp_path / "heads"), "--resamples", "5"]) == 0
    assert "| grabcut-or-box |" in capsys.readouterr().out
