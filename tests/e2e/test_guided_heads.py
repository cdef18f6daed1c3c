"""ShapeMask's and CPMask's branches through the command line: they train, label and are evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from deepmac_distill.data.synthetic import SEEN_SHAPES

MODEL = """
data.seen = {seen}
teacher.train = {{ steps = 2, batch_size = 2, image_size_px = 64 }}
evaluation = {{ gt_boxes_only = true, bootstrap = 20 }}
[teacher.model]
architecture = "mask_rcnn"
backbone = "tiny"
backbone_width = 8
fpn_channels = 8
box_channels = 8
mask_channels = 8
mask_crop = 8
anchor_sizes = [8, 16, 32, 64]
class_agnostic = {agnostic}
mask_head = "{name}"
"""


@pytest.mark.parametrize("name", ["shapemask", "cpmask"])
def test_a_branch_trains_labels_and_is_evaluated(name: str, chain, deepmac, tmp_path: Path) -> None:
    toml, run = tmp_path / "guided.toml", tmp_path / "run"
    toml.write_text(MODEL.format(name=name, agnostic="true", seen=list(SEEN_SHAPES)))
    train, val = chain[0] / "scenes-train", chain[0] / "scenes-val"
    given = ["--annotations", train / "instances.json", "--images", train / "images"]
    given += ["--set", f"data.val_annotations={val / 'instances.json'}"]
    given += ["--set", f"data.val_images={val / 'images'}"]
    for command in (
        ["teach", "--config", toml, "--out", run, *given],
        ["evaluate", "teacher", "--out", run],
        ["pseudolabel", "--out", run],
    ):
        ended = deepmac(*command)
        assert ended.code == 0, ended.err
    summary = json.loads((run / "evaluate-teacher" / "summary.json").read_text())
    assert 0 <= summary["given_boxes"]["unseen"]["class_mean_iou"]["model"] <= 1
    assert len(pq.read_table(run / "pseudolabel" / "masks.parquet"))
    weights = load_file(run / "teacher" / "weights.safetensors")
    if name == "shapemask":
        shapes = weights["mask_head.shapes"]
        assert shapes.shape == (100, 8, 8) and (shapes.sum(dim=(1, 2)) > 0).all()
        assert shapes.max() <= 1 and not shapes.eq(shapes[:1]).all()
    (log,) = [json.loads(line) for line in (run / "teacher" / "metrics.jsonl").read_text().splitlines()][-1:]
    assert log.keys() >= ({"shape", "coarse_mask"} if name == "shapemask" else {"boundary", "affinity"})


def test_a_mask_for_each_class_is_refused(chain, deepmac, tmp_path: Path) -> None:
    toml, train = tmp_path / "guided.toml", chain[0] / "scenes-train"
    toml.write_text(MODEL.format(name="shapemask", agnostic="false", seen=list(SEEN_SHAPES)))
    given = ["--annotations", train / "instances.json", "--images", train / "images"]
    ended = deepmac("teach", "--config", toml, "--out", tmp_path / "run", *given)
    assert ended.code == 2 and "class_agnostic: got false, expected true for shapemask" in ended.err
