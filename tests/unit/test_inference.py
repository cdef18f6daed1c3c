from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.errors import ContractError
from deepmac_distill.inference import detect_objects, segment_boxes
from deepmac_distill.structures import Batch, Detections, Instances

CPU = torch.device("cpu")


def batch(ids: list[int], image_ids: tuple[int, ...] = (7, 9)) -> Batch:
    n = len(ids)
    instances = Instances(
        image_index=torch.zeros(n, dtype=torch.int64),
        rows=torch.tensor(ids, dtype=torch.int64),
        boxes=torch.zeros(n, 4),
        class_index=torch.zeros(n, dtype=torch.int64),
        masks=torch.zeros(n, 2, 2, dtype=torch.uint8),
        has_mask=torch.zeros(n, dtype=torch.bool),
        mask_weight=torch.zeros(n),
    )
    sizes = torch.tensor([[8, 16], [16, 4]])  # (height, width) on a canvas of 16
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    return Batch(images=images, image_sizes=sizes, image_ids=image_ids, instances=instances)


class Model:
    """Says of each box its own id; counts how often it was asked."""

    spec = ModelSpec(mask_size=2, input_size_px=None, identity="a model of tests")

    def __init__(self) -> None:
        self.asked = 0

    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        assert torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")
        self.asked += 1
        return SegmentedMasks.of((instances.rows.float() / 255).view(-1, 1, 1).expand(-1, 2, 2))

    def detect(
        self, images: Tensor, image_sizes: Tensor, max_detections: int, min_score: float
    ) -> Detections:
        assert torch.is_inference_mode_enabled() and min_score == 0
        boxes = torch.tensor([[4.0, 2, 12, 8], [0, 0, 4, 16], [1, 4, 2, 8]])[:max_detections]
        n = len(boxes)
        return Detections(
            image_index=torch.tensor([0, 1, 1])[:n],
            boxes=boxes,
            class_index=torch.tensor([5, 0, 1])[:n],
            scores=torch.tensor([0.9, 0.8, 0.7])[:n],
            masks=torch.tensor([0.0, 1.0, 0.5]).view(3, 1, 1).expand(3, 2, 2)[:n],
        )


def test_every_box_has_its_own_grid_in_the_order_of_the_batches() -> None:
    found = list(segment_boxes(Model(), [[batch([3, 1])], [batch([])], [batch([255])]], CPU, autocast=False))
    assert [f.rows.tolist() for f in found] == [[3, 1], [], [255]]
    assert [f.grids.dtype for f in found] == [np.uint8] * 3
    assert [f.grids[:, 0, 0].tolist() for f in found] == [[3, 1], [], [255]]


def test_probabilities_are_rounded_to_the_nearest_of_256_steps() -> None:
    class Given(Model):
        def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
            return SegmentedMasks.of(torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).view(1, 2, 2))

    (found,) = segment_boxes(Given(), [[batch([1])]], CPU, autocast=False)
    assert found.grids.tolist() == [[[0, 0], [1, 255]]]


def test_a_box_without_an_answer_has_an_empty_grid() -> None:
    class Silent(Model):
        def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
            return SegmentedMasks(torch.ones(2, 2, 2), torch.tensor([True, False]), torch.tensor([0.9, 0.1]))

    (found,) = segment_boxes(Silent(), [[batch([1, 2])]], CPU, autocast=False)
    assert found.answered.tolist() == [True, False] and found.grids[:, 0, 0].tolist() == [255, 0]
    assert found.iou.tolist() == [np.float32(0.9), np.float32(0.1)]


class Recites(Model):
    """Gives for each batch in turn what it was told to."""

    def __init__(self, *masks: SegmentedMasks) -> None:
        self.masks = iter(masks)

    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        return next(self.masks)


def grids(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1).expand(-1, 2, 2)


def test_a_box_that_is_seen_twice_has_the_mean_of_its_grids_rounded_once() -> None:
    half_step = 0.5 / 255  # rounded first, the mean of 0 and 1 steps would be lost
    model = Recites(
        SegmentedMasks(grids(0.2, 3 * half_step), torch.tensor([True, True]), torch.tensor([0.5, 0.7])),
        SegmentedMasks(grids(half_step, 0.4), torch.tensor([True, True]), torch.tensor([0.1, 0.7])),
    )
    (found,) = segment_boxes(model, [[batch([4, 2]), batch([2, 4])]], CPU, autocast=False)
    assert found.rows.tolist() == [2, 4]
    assert found.grids[:, 0, 0].tolist() == [1, round(0.3 * 255)]
    np.testing.assert_allclose(found.iou, [0.4, 0.6])


def test_an_answer_in_one_view_is_an_answer() -> None:
    model = Recites(
        SegmentedMasks(
            grids(0.2, 0.8, 0.5), torch.tensor([True, False, False]), torch.tensor([0.5, 0.9, 1.0])
        ),
        SegmentedMasks(
            grids(0.9, 0.4, 0.5), torch.tensor([False, True, False]), torch.tensor([0.1, 0.3, 1.0])
        ),
    )
    (found,) = segment_boxes(model, [[batch([1, 2, 3]), batch([1, 2, 3])]], CPU, autocast=False)
    assert found.answered.tolist() == [True, True, False]
    assert found.grids[:, 0, 0].tolist() == [51, 102, 0]
    np.testing.assert_allclose(found.iou, [0.5, 0.3, 0.0])


def test_masks_of_a_mirrored_batch_are_turned_back() -> None:
    left = SegmentedMasks.of(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    mirrored = replace(batch([1]), mirrored=True)
    (found,) = segment_boxes(Recites(left), [[mirrored]], CPU, autocast=False)
    assert found.grids.tolist() == [[[0, 255], [0, 255]]]


GRIDS, YES = torch.ones(1, 2, 2), torch.tensor([True])
BROKEN = [
    (GRIDS, "got Tensor, expected SegmentedMasks"),
    (
        SegmentedMasks(GRIDS.double(), YES),
        "grids: got (1, 2, 2) torch.float64, expected (1, 2, 2) torch.float32",
    ),
    (SegmentedMasks(torch.ones(1, 3, 2), YES), "grids: got (1, 3, 2) torch.float32, expected (1, 2, 2)"),
    (SegmentedMasks(torch.ones(3, 2, 2), YES), "grids: got (3, 2, 2) torch.float32, expected (1, 2, 2)"),
    (
        SegmentedMasks(GRIDS * torch.nan, YES),
        "grids: got values from nan to nan, expected finite ones in [0, 1]",
    ),
    (SegmentedMasks(GRIDS * torch.inf, YES), "grids: got values from inf to inf"),
    (SegmentedMasks(GRIDS * 255, YES), "grids: got values from 255 to 255"),
    (SegmentedMasks(-GRIDS, YES), "grids: got values from -1 to -1"),
    (SegmentedMasks(GRIDS.numpy(), YES), "grids: got ndarray, expected a tensor"),
    (SegmentedMasks(GRIDS, YES.float()), "answered: got (1,) torch.float32, expected (1,) torch.bool"),
    (SegmentedMasks(GRIDS, YES, torch.ones(2)), "iou: got (2,) torch.float32, expected (1,)"),
    (SegmentedMasks(GRIDS, YES, torch.tensor([2.0])), "iou: got values from 2 to 2"),
]


@pytest.mark.parametrize(("returned", "says"), BROKEN, ids=[says[:30] for _, says in BROKEN])
def test_a_model_that_breaks_the_contract_is_named_with_what_it_returned(returned: object, says: str) -> None:
    class Broken(Model):
        def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
            return returned

    with pytest.raises(ContractError) as caught:
        list(segment_boxes(Broken(), [[batch([1])]], CPU, autocast=False))
    assert str(caught.value).startswith("a model of tests: segment: ") and says in str(caught.value)


def test_one_group_is_held_at_a_time() -> None:
    drawn = 0

    def batches() -> Iterator[list[Batch]]:
        nonlocal drawn
        for id in range(3):
            drawn += 1
            yield [batch([id])]

    model = Model()
    for done, _ in enumerate(segment_boxes(model, batches(), CPU, autocast=False), start=1):
        assert (drawn, model.asked) == (done, done)
    assert drawn == 3


def test_detections_leave_as_fractions_of_their_own_image() -> None:
    (found,) = detect_objects(Model(), [batch([])], CPU, autocast=False, max_detections=10)
    assert found.image_ids.tolist() == [7, 9, 9]
    expected = [[0.25, 0.25, 0.75, 1], [0, 0, 1, 1], [0.25, 0.25, 0.5, 0.5]]
    assert found.boxes_fraction.tolist() == expected
    assert found.class_index.tolist() == [5, 0, 1] and found.grids[:, 0, 0].tolist() == [0, 255, 128]
    assert found.scores.tolist() == [np.float32(s) for s in (0.9, 0.8, 0.7)]


def test_no_more_detections_are_asked_for_than_wanted() -> None:
    (found,) = detect_objects(Model(), [batch([])], CPU, autocast=False, max_detections=1)
    assert found.image_ids.tolist() == [7]


@pytest.mark.parametrize("field", ["boxes", "scores", "masks"])
def test_detections_that_are_no_numbers_are_refused_by_the_name_of_the_model(field: str) -> None:
    class Broken(Model):
        spec = replace(Model.spec, name="weights.safetensors")

        def detect(self, *given: object) -> Detections:
            found = super().detect(*given)
            return replace(found, **{field: getattr(found, field) * float("nan")})

    with pytest.raises(ContractError, match=r"^weights\.safetensors: detect: "):
        list(detect_objects(Broken(), [batch([])], CPU, autocast=False, max_detections=10))
