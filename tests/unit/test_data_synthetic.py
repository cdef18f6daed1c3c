from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from deepmac_distill.data.images import read_image
from deepmac_distill.data.synthetic import SCENE_CLASSES, SEEN_SHAPES, UNSEEN_SHAPES, draw_scene, write_scenes
from deepmac_distill.dataset.dataset import Dataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), images=60, seed=3)


def masks_by_class(path: Path) -> dict[str, list[tuple[np.ndarray, list[float]]]]:
    raw = json.loads(path.read_text())
    names = {c["id"]: c["name"] for c in raw["categories"]}
    found: dict[str, list[tuple[np.ndarray, list[float]]]] = {}
    for annotation in raw["annotations"]:
        mask = coco_mask.decode(annotation["segmentation"])
        found.setdefault(names[annotation["category_id"]], []).append((mask, annotation["bbox"]))
    return found


def test_scenes_are_the_same_bytes_again_and_a_longer_set_begins_with_the_shorter(tmp_path: Path) -> None:
    short = write_scenes(tmp_path / "short", images=2, seed=5, size_px=64)
    long = write_scenes(tmp_path / "long", images=3, seed=5, size_px=64)
    other = write_scenes(tmp_path / "other", images=2, seed=6, size_px=64)
    for name in ("000001.png", "000002.png"):
        pixels = (short.parent / "images" / name).read_bytes()
        assert pixels == (long.parent / "images" / name).read_bytes()
        assert pixels != (other.parent / "images" / name).read_bytes()
    of_two = [a for a in json.loads(long.read_text())["annotations"] if a["image_id"] <= 2]
    assert json.loads(short.read_text())["annotations"] == of_two


def test_a_box_is_tight_around_its_mask_and_the_area_is_the_masks(scenes: Path) -> None:
    for annotation in json.loads(scenes.read_text())["annotations"]:
        rows, columns = np.nonzero(coco_mask.decode(annotation["segmentation"]))
        x, y = columns.min(), rows.min()
        assert annotation["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
        assert annotation["area"] == len(rows) >= 60


def test_no_pixel_belongs_to_two_figures(scenes: Path) -> None:
    raw = json.loads(scenes.read_text())
    for image in raw["images"]:
        masks = [
            coco_mask.decode(a["segmentation"]) for a in raw["annotations"] if a["image_id"] == image["id"]
        ]
        assert 1 <= len(masks) <= 7
        assert np.sum(masks, axis=0).max() == 1


def test_a_box_is_a_poor_mask_of_an_unseen_figure(scenes: Path) -> None:
    found = masks_by_class(scenes)
    shares = [np.mean([mask.sum() / (b[2] * b[3]) for mask, b in found[name]]) for name in UNSEEN_SHAPES]
    assert 0.45 <= np.mean(shares) <= 0.60


def test_every_class_turns_up_and_is_either_seen_or_unseen(scenes: Path) -> None:
    assert set(masks_by_class(scenes)) == set(SCENE_CLASSES) == {*SEEN_SHAPES, *UNSEEN_SHAPES}
    assert not set(SEEN_SHAPES) & set(UNSEEN_SHAPES)


def test_a_contour_can_be_seen_along_a_figures_edge() -> None:
    contrasts = []
    for seed in range(20):
        pixels, figures = draw_scene(np.random.default_rng(seed), 128)
        inside = np.pad(figures[-1].visible, 1, mode="edge")  # the nearest figure is seen whole
        neighbors = [
            inside[1 + dy : 129 + dy, 1 + dx : 129 + dx] for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        ]
        core = np.logical_and.reduce(neighbors) & inside[1:-1, 1:-1]
        edge = inside[1:-1, 1:-1] & ~core
        contrasts.append(np.abs(pixels[edge].mean(0) - pixels[core].mean(0)).max())
    assert np.median(contrasts) > 30  # of 255


def test_scenes_are_read_by_pycocotools_and_by_our_reader(scenes: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(scenes))
    ours = Dataset.open(scenes, seen=list(SEEN_SHAPES), strict=True).for_training()
    assert len(theirs.anns) == len(ours.annotations)
    assert set(ours.classes.unseen_names) == set(UNSEEN_SHAPES)
    assert ours.counts["hidden_masks"] == (~ours.has_mask()).sum() > 0
    first = theirs.imgs[1]
    assert read_image(scenes.parent / "images" / first["file_name"]).shape == (3, 128, 128)
    assert (first["height"], first["width"]) == (128, 128)
