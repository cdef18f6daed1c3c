"""Images as a model looks at their boxes, in batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepmac_distill.contract import ModelSpec
from deepmac_distill.data import framed
from deepmac_distill.data.framed import (
    FramedBoxes,
    FramedImages,
    framed_batches,
    framed_units,
    unit_positions,
)
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.loader import evaluation_batches
from deepmac_distill.data.synthetic import write_scenes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError
from deepmac_distill.inference import boxes_for, framed_boxes
from deepmac_distill.look import Look
from deepmac_distill.structures import Batch

SPEC = ModelSpec(mask_size=8, input_size_px=48, any_size=True, identity="x")
LOOKS = {
    "windows": Look(boxes="windows", window_size_px=32),
    "by-size": Look(boxes="by-size", window_size_px=32, image_from=0.3),
    "both, mirrored": Look(boxes="average", window_size_px=32, mirror=True),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), images=7, seed=1, size_px=64)


def looked_at(scenes: Path, look: Look, spec: ModelSpec = SPEC) -> FramedBoxes:
    annotations = Dataset.open(scenes, seen="all").for_training()
    return framed_boxes(look, spec, annotations, ImageFolder(scenes.parent / "images"))


def rows_of(some: FramedImages) -> list[int]:
    return sorted(row for batch in some.batches for row in batch.instances.rows.tolist())


def assert_equal(a: Batch, b: Batch) -> None:
    assert torch.equal(a.images, b.images) and torch.equal(a.image_sizes, b.image_sizes)
    assert (a.image_ids, a.complete, a.mirrored) == (b.image_ids, b.complete, b.mirrored)
    assert torch.equal(a.instances.boxes, b.instances.boxes)
    assert torch.equal(a.instances.rows, b.instances.rows)


@pytest.mark.parametrize("size_px", [48, None])
def test_whole_images_come_in_the_batches_of_every_other_evaluation(
    scenes: Path, size_px: int | None
) -> None:
    spec = ModelSpec(mask_size=8, input_size_px=size_px, identity="x")
    found = list(framed_batches(looked_at(scenes, Look(), spec), 3))
    annotations, images = (
        Dataset.open(scenes, seen="all").for_training(),
        ImageFolder(scenes.parent / "images"),
    )
    whole = evaluation_batches(boxes_for(spec, annotations, images), 3 if size_px else 1)
    assert [len(some.batches) for some in found] == [1] * len(found)
    for some, expected in zip(found, whole, strict=True):
        assert_equal(some.batches[0], expected)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_box_comes_with_its_group_and_no_batch_is_larger_than_asked(scenes: Path, look: Look) -> None:
    dataset = looked_at(scenes, look)
    groups = list(framed_batches(dataset, 3))
    times = 4 if look.boxes == "average" else 1
    assert [some.images for some in groups] == [3, 3, 1]
    for number, some in enumerate(groups):
        positions = range(3 * number, 3 * number + some.images)
        rows = [row for position in positions for row in dataset.source.rows(position).tolist()]
        assert rows_of(some) == sorted(times * rows)
        for batch in some.batches:
            assert len(batch.images) <= 3
            assert batch.images.shape[-1] == (48 if batch.complete else 32)
            if not batch.complete:
                assert len(batch.instances) == len(batch.images)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_workers_change_nothing(scenes: Path, look: Look) -> None:
    alone, helped = (list(framed_batches(looked_at(scenes, look), 3, workers=count)) for count in (0, 1))
    for a, b in zip(alone, helped, strict=True):
        assert a.images == b.images
        for one, other in zip(a.batches, b.batches, strict=True):
            assert_equal(one, other)


def test_images_with_many_boxes_are_looked_at_one_by_one(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framed, "WINDOWS_AT_ONCE", 8)
    dataset = looked_at(scenes, LOOKS["windows"])
    groups = list(framed_batches(dataset, 3))
    boxes = [len(dataset.source.rows(position)) for position in range(len(dataset))]
    assert sum(some.images for some in groups) == len(boxes)
    assert all(some.images == 1 or len(rows_of(some)) <= 8 for some in groups)
    assert any(some.images == 1 for some in groups[:-1])


def test_a_model_of_images_as_they_are_gets_them_one_by_one_and_windows_together(scenes: Path) -> None:
    native = ModelSpec(mask_size=8, input_size_px=None, identity="x")
    in_windows = framed_batches(looked_at(scenes, LOOKS["windows"], native), 3)
    assert {len(batch.images) for some in in_windows for batch in some.batches[:-1]} == {3}
    both = list(framed_batches(looked_at(scenes, LOOKS["both, mirrored"], native), 3))
    assert [some.images for some in both] == [1] * 7
    assert {len(b.images) for some in both for b in some.batches if b.complete} == {1}


@pytest.mark.parametrize("look", [Look(), *LOOKS.values()], ids=["image", *LOOKS])
def test_an_unreadable_image_is_reported_however_a_model_looks(tmp_path: Path, look: Look) -> None:
    scenes = write_scenes(tmp_path, images=4, seed=1, size_px=64)
    dataset = looked_at(scenes, look)
    names = dataset.source.annotations.images["file_name"].to_pylist()
    (tmp_path / "images" / names[1]).write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be decoded"):
        list(framed_batches(dataset, 3))
    heard: list[int] = []
    groups = list(framed_batches(dataset, 3, on_unreadable=lambda id, error: heard.append(id)))
    assert heard == [dataset.image_id(1)]
    assert [some.images for some in groups] == [2, 1]
    assert not set(dataset.source.rows(1).tolist()) & {row for some in groups for row in rows_of(some)}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("look", [Look(), *LOOKS.values()], ids=["image", *LOOKS])
def test_one_loader_gives_each_unit_what_it_would_have_alone(scenes: Path, look: Look, workers: int) -> None:
    dataset = looked_at(scenes, look)
    units = {4: range(0, 4), 1: range(4, 5), 9: range(5, 7)}
    found = {unit: list(some) for unit, some in framed_units(dataset, 3, units, workers)}
    assert list(found) == [4, 1, 9]
    for unit, some in found.items():
        alone = list(framed_batches(dataset, 3, units[unit]))
        assert [one.images for one in some] == [one.images for one in alone]
        for one, other in zip(some, alone, strict=True):
            for a, b in zip(one.batches, other.batches, strict=True):
                assert_equal(a, b)


def test_a_unit_hears_of_its_own_unreadable_images_alone(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path, images=4, seed=1, size_px=64)
    dataset = looked_at(scenes, Look())
    for name in dataset.source.annotations.images["file_name"].to_pylist()[2:]:
        (tmp_path / "images" / name).write_bytes(b"no image")
    heard: dict[int, list[int]] = {}
    now: list[int] = []
    units = {0: range(0, 2), 1: range(2, 4)}  # of the second one nothing can be read
    for unit, some in framed_units(dataset, 1, units, on_unreadable=lambda id, error: now.append(id)):
        assert len(list(some)) == (2 if unit == 0 else 0)
        heard[unit] = list(now)
        now.clear()
    assert heard == {0: [], 1: [dataset.image_id(2), dataset.image_id(3)]}


def test_units_of_groups_do_not_change_the_groups(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed, "WINDOWS_AT_ONCE", 8)
    for look in LOOKS.values():
        dataset = looked_at(scenes, look)
        whole = [rows_of(some) for some in framed_batches(dataset, 3)]
        units = unit_positions(dataset, 3, groups=2)
        parts = [[rows_of(some) for some in group] for _, group in framed_units(dataset, 3, units)]
        assert [len(part) for part in parts[:-1]] == [2] * (len(parts) - 1)
        assert [rows for part in parts for rows in part] == whole
    assert unit_positions(looked_at(scenes, Look()), 3, groups=1) == {
        0: range(0, 3), 1: range(3, 6), 2: range(6, 7)
    }  # fmt: skip
