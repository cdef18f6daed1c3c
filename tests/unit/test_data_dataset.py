from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac_distill.data.augment import View, ViewOf, evaluation_views, training_views
from deepmac_distill.data.dataset import AnnotatedImages, BoxDataset, SoftGrid
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.dataset.dataset import Dataset

SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]  # covers the box [10, 5, 20, 20] xywh
LEFT_HALF = [10, 5, 20, 5, 20, 25, 10, 25]
WHOLE = evaluation_views(60)


def annotation(id: int, bbox: list[float], category: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": id, "image_id": 7, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}


def rle_of(box: tuple[int, int, int, int]) -> dict[str, Any]:
    mask = np.zeros((40, 60), dtype=np.uint8, order="F")
    mask[box[1] : box[3], box[0] : box[2]] = 1
    rle = coco_mask.encode(mask)
    return {"size": [40, 60], "counts": rle["counts"].decode()}


ANNOTATIONS = [
    annotation(1, [10, 5, 20, 20], segmentation=[LEFT_HALF]),
    annotation(2, [10, 5, 20, 20], segmentation=rle_of((20, 5, 30, 25))),
    annotation(3, [10, 5, 20, 20], segmentation={**rle_of((0, 0, 60, 40))}, iscrowd=1),
    annotation(4, [10, 5, 0, 20]),
    annotation(5, [50, 30, 30, 30]),  # over the edge, without a mask
    annotation(6, [10, 5, 20, 20], category=2, segmentation=[SQUARE], area=400),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    Image.fromarray(np.zeros((10, 10, 3), dtype=np.uint8)).save(tmp_path / "empty.png")
    images = [
        {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
        {"id": 9, "file_name": "empty.png", "height": 10, "width": 10},
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "kite"}]
    raw = {"images": images, "annotations": ANNOTATIONS, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(raw))
    return tmp_path / "instances.json"


def dataset(source: Path, view_of: ViewOf = WHOLE, seed: int = 0, **more: Any) -> BoxDataset:
    annotations = Dataset.open(source, seen=["cat"]).for_training()
    images = AnnotatedImages(annotations, ImageFolder(source.parent), mask_size=4, **more)
    return BoxDataset(images, view_of, seed)


def test_every_usable_box_comes_once_in_table_order(source: Path) -> None:
    sample = dataset(source)[0, 0]
    assert sample.rows.tolist() == [0, 1, 4, 5]  # no crowd, none without area
    assert sample.class_index.tolist() == [0, 0, 0, 1]
    assert sample.boxes.tolist() == [[10, 5, 30, 25], [10, 5, 30, 25], [50, 30, 60, 40], [10, 5, 30, 25]]
    assert (sample.image_id, sample.image_size, tuple(sample.image.shape)) == (7, (40, 60), (3, 60, 60))


def test_polygons_and_runs_become_grids_over_their_boxes(source: Path) -> None:
    sample = dataset(source)[0, 0]
    left = np.tile(np.array([255, 255, 0, 0], dtype=np.uint8), (4, 1))
    assert np.array_equal(sample.masks[0], left)
    assert np.array_equal(sample.masks[1], left[:, ::-1])


def test_a_hidden_or_missing_mask_is_all_zero_and_says_so(source: Path) -> None:
    sample = dataset(source)[0, 0]
    assert sample.has_mask.tolist() == [True, True, False, False]
    assert not sample.masks[2:].any()


def test_garbage_in_hidden_masks_changes_no_sample(source: Path) -> None:
    clean = dataset(source, training_views(32))[0, 3]
    raw = json.loads(source.read_text())
    raw["annotations"][5] |= {"segmentation": [[0, 0, 60, 0, 60, 40]], "area": 1}
    source.write_text(json.dumps(raw))
    dirty = dataset(source, training_views(32))[0, 3]
    for name in ("image", "rows", "boxes", "class_index", "masks", "has_mask"):
        assert np.array_equal(np.asarray(getattr(clean, name)), np.asarray(getattr(dirty, name))), name


def test_a_box_is_clipped_first_and_its_mask_rasterized_over_what_is_left(source: Path) -> None:
    right = View(height=40, width=60, crop=(15, 5, 35, 25), fit=(40, 40), size_px=40)
    sample = dataset(source, lambda rng, height, width: right)[0, 0]
    assert sample.rows.tolist() == [0, 1, 5]  # box 5 is out of sight
    assert sample.boxes[0].tolist() == [0, 0, 30, 40]  # source x 15 to 30
    thirds = np.array([255, 85, 0, 0])  # cells of 3.75 px; the polygon ends at x = 20, in the second
    assert np.array_equal(sample.masks[0], np.tile(thirds, (4, 1)))


def test_on_the_lattice_of_the_reference_cells_are_around_samples_from_edge_to_edge(source: Path) -> None:
    sample = dataset(source, lattice="reference")[0, 0]
    # Samples at x = 10, 16.7, 23.3 and 30; the outermost cells are half outside the box, down as across.
    half, whole = np.array([64, 128, 0, 0]), np.array([128, 255, 0, 0])
    assert np.abs(sample.masks[0].astype(int) - np.stack([half, whole, whole, half])).max() <= 1


def test_a_soft_grid_is_seen_from_either_lattice(source: Path) -> None:
    cells = np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8)
    for own in ("centers", "reference"):
        soft = {0: SoftGrid(cells, own)}
        same = dataset(source, soft=soft, lattice=own)[0, 0].masks[0]
        assert np.abs(same.astype(int) - cells).max() <= 1
    # The first cell of one ends at x = 13.3; two thirds of the first of the other, 10 to 15, are in it.
    soft = {0: SoftGrid(np.tile(np.array([200, 0, 0, 0], np.uint8), (4, 1)), "reference")}
    seen = dataset(source, soft=soft)[0, 0].masks[0]
    assert np.array_equal(seen, np.tile([133, 0, 0, 0], (4, 1)))


def test_a_flip_turns_pixels_boxes_and_masks_together(source: Path) -> None:
    views = [
        View(height=40, width=60, crop=(0, 0, 60, 40), fit=(40, 60), size_px=60, flipped=f)
        for f in (False, True)
    ]
    plain, flipped = (dataset(source, lambda rng, height, width, v=v: v)[0, 0] for v in views)
    assert np.array_equal(flipped.image.flip(-1), plain.image)
    assert np.array_equal(flipped.masks[:, :, ::-1], plain.masks)
    assert flipped.boxes[2].tolist() == [0, 30, 10, 40]


def test_a_sample_depends_on_seed_position_and_draw_alone(source: Path) -> None:
    first, again = (dataset(source, training_views(32), seed=1) for _ in range(2))
    other = dataset(source, training_views(32), seed=2)
    again[0, 1]  # what was asked for before does not matter
    assert np.array_equal(first[0, 0].image, again[0, 0].image)
    assert not np.array_equal(first[0, 0].image, first[0, 1].image)
    assert not np.array_equal(first[0, 0].image, other[0, 0].image)


def test_an_image_without_boxes_is_an_ordinary_sample(source: Path) -> None:
    sample = dataset(source)[1, 0]
    assert sample.boxes.shape == (0, 4) and sample.masks.shape == (0, 4, 4)


def test_masks_can_be_left_out(source: Path) -> None:
    sample = dataset(source, with_masks=False)[0, 0]
    assert not sample.has_mask.any() and not sample.masks.any()
    assert len(sample.boxes) == 4


@pytest.mark.photos
def test_real_photographs_become_samples() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "coco-tiny"
    if not folder.is_dir():
        pytest.skip("no photographs here")
    annotations = Dataset.open(next(folder.glob("*.json")), seen="voc").for_training()
    images = AnnotatedImages(annotations, ImageFolder(folder / "images"), mask_size=32)
    samples = BoxDataset(images, evaluation_views(128))
    taken = [samples[position, 0] for position in range(20)]
    usable = (np.array(annotations.annotations["status"]) == "ok")[: annotations.rows_by_image()[20]]
    assert sum(len(s.boxes) for s in taken) == usable.sum()
    assert all(s.masks[s.has_mask].any(axis=(1, 2)).all() for s in taken)
