"""The Python interface: its names, its page and its notebook run as they stand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

import deepmac_distill
from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.structures import Instances

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
MAX_LINES_FOR_A_MASK = 4


class Half:
    """A mask in the left half of each box, of no model."""

    spec = ModelSpec(mask_size=8, input_size_px=64, identity="half")

    def segment(self, images: torch.Tensor, instances: Instances) -> SegmentedMasks:
        """The same grid for all."""
        grid = torch.zeros(8, 8)
        grid[:, :4] = 1
        return SegmentedMasks.of(grid.expand(len(instances), 8, 8))


@pytest.fixture
def page_folder(chain: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the page names: a run, a picture, an annotation file."""
    for name in ("mine", "demo"):
        shutil.copytree(chain[0], tmp_path / "runs" / name)
    scenes = tmp_path / "runs" / "mine" / "scenes-train"
    shutil.copy(scenes / "instances.json", tmp_path / "train.json")
    shutil.copy(min((scenes / "images").iterdir()), tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_in_order(blocks: list[str]) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, "block", "exec"), names)
    return names


def test_every_block_of_the_page_runs(page_folder: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = run_in_order(blocks)
    masks = names["masks"]
    assert isinstance(masks, deepmac_distill.BoxMasks) and len(masks) == 2
    assert [coco_mask.area(rle) for rle in masks.rle] == masks.dense().sum((1, 2)).tolist()


def test_every_cell_of_the_notebook_runs(page_folder: Path) -> None:
    notebook = json.loads((ROOT / "examples" / "masks.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = run_in_order(cells)
    assert len(names["masks"].scores) == len(names["boxes"])  # type: ignore[attr-defined, arg-type]


def test_a_mask_takes_four_lines() -> None:
    first = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
    lines = [line for line in first.splitlines() if line.strip()]
    assert lines.index(next(line for line in lines if "masks.rle" in line)) < MAX_LINES_FOR_A_MASK


def test_all_names_can_be_had_and_none_costs_an_import_of_torch() -> None:
    for name in deepmac_distill.__all__:
        assert getattr(deepmac_distill, name).__doc__
    program = "import sys, deepmac_distill; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'mask'"):
        deepmac_distill.mask  # noqa: B018


def test_boxes_are_corners_or_corner_and_size_and_are_clipped() -> None:
    model, image = deepmac_distill.load(Half()), np.zeros((40, 60, 3), np.uint8)
    corners = model.masks(image, [[10, 10, 30, 20], [50, 30, 90, 90]])
    sizes = model.masks(image, [[10, 10, 20, 10], [50, 30, 40, 60]], fmt="xywh")
    assert corners.rle == sizes.rle
    assert corners.boxes.tolist() == [[10, 10, 30, 20], [50, 30, 60, 40]]
    left = corners.dense()[0]
    assert left[10:20, 10:19].all() and not left[:, 22:].any() and not left[:, :10].any()


def test_another_cut_needs_no_model() -> None:
    masks = deepmac_distill.load(Half()).masks(np.zeros((40, 60, 3), np.uint8), [[10, 10, 30, 20]])
    assert masks.at(0.9).dense().sum() < masks.at(0.1).dense().sum()
    assert masks.at(0.5).rle == masks.rle


@pytest.mark.parametrize(
    ("image", "boxes", "says"),
    [
        (np.zeros((9, 9), np.uint8), [[0, 0, 4, 4]], "expected (H, W, 3) uint8 RGB"),
        (np.zeros((9, 9, 3)), [[0, 0, 4, 4]], "float64, expected (H, W, 3) uint8"),
        (np.zeros((9, 9, 3), np.uint8), [[4, 4, 4, 8]], "no area in the 9 x 9 image"),
        (np.zeros((9, 9, 3), np.uint8), [[20, 20, 30, 30]], "no area"),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, float("nan"), 4]], "expected finite"),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, 4]], "expected (N, 4)"),
        ("nothing.jpg", [[0, 0, 4, 4]], "nothing.jpg: no such file"),
    ],
)
def test_bad_input_is_named(image: object, boxes: object, says: str) -> None:
    with pytest.raises(DataError) as refused:
        deepmac_distill.load(Half()).masks(image, boxes)  # type: ignore[arg-type]
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_no_boxes_are_no_masks() -> None:
    masks = deepmac_distill.load(Half()).masks(np.zeros((9, 9, 3), np.uint8), np.zeros((0, 4)))
    assert len(masks) == 0 and masks.dense().shape == (0, 9, 9) and masks.rle == []


def test_a_model_that_does_not_detect_says_so() -> None:
    with pytest.raises(ConfigError, match="half: was trained without detection"):
        deepmac_distill.load(Half()).detect(np.zeros((9, 9, 3), np.uint8))
