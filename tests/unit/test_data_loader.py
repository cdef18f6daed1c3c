from __future__ import annotations

from dataclasses import fields
from itertools import islice
from pathlib import Path

import pytest
import torch

from deepmac_distill.data.augment import evaluation_views, training_views
from deepmac_distill.data.dataset import AnnotatedImages, BoxDataset
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.loader import collate, evaluation_batches, training_batches
from deepmac_distill.data.synthetic import SEEN_SHAPES, write_scenes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError
from deepmac_distill.files import write_json
from deepmac_distill.structures import Batch


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), images=7, seed=1, size_px=64)


def dataset(scenes: Path, training: bool) -> BoxDataset:
    views = training_views(48) if training else evaluation_views(48)
    annotations = Dataset.open(scenes, seen=list(SEEN_SHAPES)).for_training()
    images = AnnotatedImages(annotations, ImageFolder(scenes.parent / "images"), mask_size=8)
    return BoxDataset(images, views, seed=4)


def assert_equal(a: Batch, b: Batch) -> None:
    assert a.image_ids == b.image_ids
    assert torch.equal(a.images, b.images) and torch.equal(a.image_sizes, b.image_sizes)
    for field in fields(a.instances):
        assert torch.equal(getattr(a.instances, field.name), getattr(b.instances, field.name)), field.name


def test_a_batch_is_its_samples_one_after_another(scenes: Path) -> None:
    samples = [dataset(scenes, False)[position, 0] for position in (2, 0)]
    batch = collate(samples)
    assert batch.image_ids == (3, 1)
    assert batch.images.shape == (2, 3, 48, 48) and batch.image_sizes.tolist() == [[48, 48], [48, 48]]
    for position, sample in enumerate(samples):
        mine = batch.instances.select(batch.instances.image_index == position)
        assert mine.rows.tolist() == sample.rows.tolist()
        assert torch.allclose(mine.boxes.double(), torch.from_numpy(sample.boxes), atol=1e-5)
        assert torch.equal(mine.masks, torch.from_numpy(sample.masks.copy()))
    assert (batch.instances.mask_weight == 1).all()


def test_a_run_taken_up_at_any_step_sees_the_batches_of_one_that_never_stopped(scenes: Path) -> None:
    unbroken = list(islice(training_batches(dataset(scenes, True), 3, seed=5), 6))
    for first_step in (0, 1, 4):
        resumed = training_batches(dataset(scenes, True), 3, seed=5, first_step=first_step)
        for expected in unbroken[first_step:]:
            assert_equal(next(resumed), expected)


def test_the_number_of_workers_changes_no_byte(scenes: Path) -> None:
    alone = training_batches(dataset(scenes, True), 3, seed=5)
    helped = training_batches(dataset(scenes, True), 3, seed=5, workers=2)
    for one, other in islice(zip(alone, helped, strict=True), 5):
        assert_equal(one, other)
    helped.close()


def test_loading_leaves_the_global_random_state_alone(scenes: Path) -> None:
    state = torch.get_rng_state()
    next(training_batches(dataset(scenes, True), 3, seed=5))
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_sees_each_image_once_in_order(scenes: Path) -> None:
    everything = evaluation_batches(dataset(scenes, False), 3)
    assert [batch.image_ids for batch in everything] == [(1, 2, 3), (4, 5, 6), (7,)]
    some = evaluation_batches(dataset(scenes, False), 2, positions=[5, 0, 3])
    assert [batch.image_ids for batch in some] == [(6, 1), (4,)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_the_work_with_one_line(tmp_path: Path, workers: int) -> None:
    scenes = write_scenes(tmp_path, images=4, seed=1, size_px=32)
    (tmp_path / "images" / "000003.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"000003\.png: cannot be decoded") as caught:
        list(evaluation_batches(dataset(scenes, False), 2, workers=workers))
    assert "\n" not in str(caught.value)


def test_an_unreadable_image_is_reported_and_left_out_where_someone_listens(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path, images=5, seed=1, size_px=32)
    for name in ("000001.png", "000005.png"):
        (tmp_path / "images" / name).unlink()
    told: dict[int, str] = {}

    def listen(image_id: int, error: DataError) -> None:
        told[image_id] = str(error)

    batches = evaluation_batches(dataset(scenes, False), 2, on_unreadable=listen)
    assert [batch.image_ids for batch in batches] == [(2,), (3, 4)]
    assert list(told) == [1, 5] and "000005.png: no such file" in told[5]


def test_training_on_no_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    write_json(path, {"images": [], "annotations": [], "categories": [{"id": 1, "name": "ellipse"}]})
    annotations = Dataset.open(path, seen=["ellipse"]).for_training()
    nothing = BoxDataset(AnnotatedImages(annotations, ImageFolder(tmp_path), mask_size=8), training_views(32))
    with pytest.raises(DataError, match=r"none\.json: no images"):
        training_batches(nothing, 2, seed=0)
    assert list(evaluation_batches(nothing, 2)) == []
