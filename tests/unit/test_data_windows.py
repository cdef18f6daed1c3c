"""What a model trains on that sees each instance in a window of its own."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmac_distill.data.augment import training_views
from deepmac_distill.data.dataset import JITTER_STREAM, AnnotatedImages, BoxDataset, jittered
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.loader import alternating_batches, training_batches
from deepmac_distill.data.synthetic import SEEN_SHAPES, write_scenes
from deepmac_distill.data.windows import WindowDataset
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.rasterize import rasterize_rle
from deepmac_distill.structures import Batch


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), images=7, seed=1, size_px=64)


def images_of(annotations: Path, folder: Path) -> AnnotatedImages:
    view = Dataset.open(annotations, seen=list(SEEN_SHAPES)).for_training()
    return AnnotatedImages(view, ImageFolder(folder / "images"), mask_size=8)


def windows_of(scenes: Path, **more: float) -> WindowDataset:
    settings = {"context": 1.5, "seed": 4, **more}
    return WindowDataset(images_of(scenes, scenes.parent), size_px=32, **settings)


def assert_equal(a: Batch, b: Batch) -> None:
    assert torch.equal(a.images, b.images) and (a.image_ids, a.complete) == (b.image_ids, b.complete)
    for field in fields(a.instances):
        assert torch.equal(getattr(a.instances, field.name), getattr(b.instances, field.name)), field.name


def test_there_is_one_window_for_each_instance_with_a_mask(scenes: Path) -> None:
    windows = windows_of(scenes)
    shown = [windows[item, 0] for item in range(len(windows))]
    table = windows.source.annotations.annotations
    usable = np.asarray(table["status"]) == "ok"
    expected = np.flatnonzero(windows.source.annotations.has_mask() & usable)
    assert [sample.rows.tolist() for sample in shown] == [[row] for row in expected]
    assert 0 < len(expected) < len(table)
    for sample in shown:
        assert sample.image.shape == (3, 32, 32) and sample.image_size == (32, 32)
        assert sample.has_mask.all() and sample.masks.any() and not sample.complete
        assert sample.image_id == table["image_id"][int(sample.rows[0])].as_py()


def test_without_jitter_a_window_is_the_one_of_evaluation(scenes: Path) -> None:
    still = windows_of(scenes, scale_range=(1.0, 1.0), shift=0.0, flip_fraction=0.0, color_jitter=False)
    for item in range(len(still)):
        sample = still[item, 0]
        box = still.source.boxes(sample.rows)[0]
        side = np.ceil(max(1.5 * (box[2:] - box[:2]).max(), (box[2:] - box[:2]).max() + 2, 24))
        np.testing.assert_allclose(sample.boxes[0, 2:] - sample.boxes[0, :2], (box[2:] - box[:2]) * 32 / side)
        np.testing.assert_allclose((sample.boxes[0, :2] + sample.boxes[0, 2:]) / 2, [16, 16], atol=32 / side)


def test_scale_and_place_are_drawn_within_their_ranges(scenes: Path) -> None:
    windows = windows_of(scenes, context=3.0, flip_fraction=0.0)
    sides, moves = [], []
    for draw in range(300):
        sample = windows[0, draw]
        box = windows.source.boxes(sample.rows)[0]
        scale = (sample.boxes[0, 2] - sample.boxes[0, 0]) / (box[2] - box[0])
        sides.append(32 / scale / (box[2:] - box[:2]).max() / 3)
        moves.append((sample.boxes[0, :2] + sample.boxes[0, 2:]) / 64 - 0.5)
    assert 0.8 <= min(sides) < 0.85 and 1.2 < max(sides) < 1.3  # whole pixels make it a little larger
    assert 0.08 < np.abs(moves).max() < 0.14 and np.abs(np.mean(moves, axis=0)).max() < 0.03


def test_a_jittered_box_has_the_mask_that_is_over_it(scenes: Path) -> None:
    """Sides move by themselves within their share, and no window is drawn otherwise without jitter."""
    still = {"scale_range": (1.0, 1.0), "shift": 0.0, "flip_fraction": 0.0, "color_jitter": False}
    loose = windows_of(scenes, box_jitter=0.2, **still)
    codes = loose.source.annotations.annotations["rle_counts"]
    moved = []
    for draw in range(40):
        item = draw % len(loose)
        sample = loose[item, draw]
        (row,) = sample.rows
        tight = loose.source.boxes(sample.rows)[0]
        x1, y1, x2, y2 = tight
        side = (sample.boxes[0, 2:] - sample.boxes[0, :2]).max()
        box = jittered_box(loose, item, draw)
        scale = (sample.boxes[0, 2:] - sample.boxes[0, :2]) / (box[2:] - box[:2])
        assert np.allclose(scale, scale[0]) and side <= 32
        assert np.array_equal(sample.masks[0], rasterize_rle(codes[int(row)].as_py(), 64, 64, box, 8))
        assert (box >= 0).all() and (box <= 64).all()
        moved.append((box - tight) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1])
    moved = np.array(moved)
    assert 0.17 < np.abs(moved).max() <= 0.2 and np.abs(moved.mean(axis=0)).max() < 0.08
    assert np.abs(np.corrcoef(moved.T) - np.eye(4)).max() < 0.5
    assert not np.array_equal(loose[0, 0].boxes, loose[0, 1].boxes)


def jittered_box(windows: WindowDataset, item: int, draw: int) -> np.ndarray:
    """The box of a window in pixels of the image, from its draw."""
    rng = np.random.default_rng([windows.seed, item, draw, JITTER_STREAM])
    tight = windows.source.boxes(windows.source.masked_rows()[item : item + 1])
    return jittered(tight, windows.box_jitter, rng, 64, 64)[0]


def test_jitter_depends_on_seed_item_and_draw_alone(scenes: Path) -> None:
    loose = windows_of(scenes, box_jitter=0.2)
    later = [loose[item, draw].boxes for draw in (3, 1) for item in (2, 0)]
    again = windows_of(scenes, box_jitter=0.2)
    assert all(np.array_equal(again[i, d].boxes, b) for (d, i), b in zip(ORDER, later, strict=True))
    other = windows_of(scenes, box_jitter=0.2, seed=5)
    assert not np.array_equal(other[2, 3].boxes, later[0])


ORDER = ((3, 2), (3, 0), (1, 2), (1, 0))  # draws and items


def test_boxes_of_whole_images_are_jittered_too_and_views_stay_what_they_were(scenes: Path) -> None:
    tight, loose = (
        BoxDataset(images_of(scenes, scenes.parent), training_views(48), seed=4, box_jitter=share)
        for share in (0.0, 0.15)
    )
    moved = 0
    for position in range(len(tight)):
        a, b = tight[position, 0], loose[position, 0]
        assert torch.equal(a.image, b.image)
        moved += len(a.boxes) != len(b.boxes) or not np.array_equal(a.boxes, b.boxes)
    assert moved == len(tight)


def test_garbage_in_unseen_masks_changes_no_window(scenes: Path, tmp_path: Path) -> None:
    raw = json.loads(scenes.read_text())
    unseen = {c["id"] for c in raw["categories"] if c["name"] not in SEEN_SHAPES}
    garbled = [a for a in raw["annotations"] if a["category_id"] in unseen]
    for annotation in garbled:
        annotation["segmentation"] = [[0, 0, 64, 0, 64, 64]]
    (tmp_path / "instances.json").write_text(json.dumps(raw))
    clean = windows_of(scenes)
    dirty = WindowDataset(
        images_of(tmp_path / "instances.json", scenes.parent), size_px=32, context=1.5, seed=4
    )
    assert garbled and len(clean) == len(dirty)
    for item in range(len(clean)):
        for name in ("image", "rows", "boxes", "masks", "has_mask"):
            assert np.array_equal(getattr(clean[item, 2], name), getattr(dirty[item, 2], name)), name


@pytest.mark.parametrize("first_step", [0, 1, 3, 6])
def test_windows_go_on_as_if_training_had_never_stopped(scenes: Path, first_step: int) -> None:
    unbroken = list(islice(training_batches(windows_of(scenes), 3, seed=5), 8))
    resumed = training_batches(windows_of(scenes), 3, seed=5, first_step=first_step)
    for expected, got in zip(unbroken[first_step:], resumed, strict=False):
        assert_equal(expected, got)


@pytest.mark.parametrize("first_step", [0, 1, 2, 5])
def test_images_and_windows_come_in_turn_wherever_training_goes_on(scenes: Path, first_step: int) -> None:
    images = BoxDataset(images_of(scenes, scenes.parent), training_views(48), seed=4)
    unbroken = list(islice(alternating_batches(images, windows_of(scenes), 2, seed=5), 8))
    assert [batch.complete for batch in unbroken] == [True, False] * 4
    assert [batch.images.shape[-1] for batch in unbroken] == [48, 32] * 4
    resumed = alternating_batches(images, windows_of(scenes), 2, seed=5, first_step=first_step)
    for expected, got in zip(unbroken[first_step:], resumed, strict=False):
        assert_equal(expected, got)
    alone = islice(training_batches(windows_of(scenes), 2, seed=5), 4)
    for expected, got in zip(alone, unbroken[1::2], strict=True):
        assert_equal(expected, got)


def test_workers_change_no_window(scenes: Path) -> None:
    alone = training_batches(windows_of(scenes), 3, seed=5)
    helped = training_batches(windows_of(scenes), 3, seed=5, workers=1)
    for _ in range(3):
        assert_equal(next(alone), next(helped))


def test_a_set_without_a_mask_has_no_windows(scenes: Path, tmp_path: Path) -> None:
    raw = json.loads(scenes.read_text())
    for annotation in raw["annotations"]:
        annotation.pop("segmentation")
    (tmp_path / "instances.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match="no box has a mask; expected at least one to train on windows"):
        WindowDataset(images_of(tmp_path / "instances.json", scenes.parent), size_px=32, context=1.5)


def test_an_unreadable_image_is_named(scenes: Path, tmp_path: Path) -> None:
    nowhere = WindowDataset(images_of(scenes, tmp_path), size_px=32, context=1.5)
    with pytest.raises(DataError, match="no such file; expected an image"):
        next(training_batches(nowhere, 2, seed=0))
