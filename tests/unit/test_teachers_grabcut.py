"""GrabCut as a teacher: colors alone, no training."""

from __future__ import annotations

import torch

from deepmac_distill.structures import Instances
from deepmac_distill.teachers.grabcut import GrabCut


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A red disc of radius 12 around (24, 20) on blue, both a little noisy; and the disc."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    disc = (x - 24) ** 2 + (y - 20) ** 2 <= 12**2
    image = torch.where(
        disc, torch.tensor([200, 40, 30])[:, None, None], torch.tensor([30, 60, 190])[:, None, None]
    )
    noise = torch.randint(-10, 11, image.shape, generator=generator)
    return (image + noise).clamp(0, 255).byte(), disc


def boxes(*corners: list[float]) -> Instances:
    return Instances.of_boxes([torch.tensor(corners)], [torch.zeros(len(corners), dtype=torch.int64)], 1)


def test_a_shape_of_its_own_color_is_found() -> None:
    image, _ = scene()
    model = GrabCut(mask_size=24)
    mask = model.segment(image[None], boxes([12.0, 8.0, 36.0, 32.0])).grids[0] > 0.5
    line = torch.arange(24) + 0.5 - 12
    truth = line[:, None] ** 2 + line**2 <= 12**2
    iou = (mask & truth).sum() / (mask | truth).sum()
    assert iou > 0.93  # the box itself has pi / 4


def test_the_same_box_gives_the_same_mask_whatever_else_is_asked() -> None:
    image, _ = scene()
    model = GrabCut()
    alone = model.segment(image[None], boxes([12.0, 8.0, 36.0, 32.0])).grids
    among = model.segment(image[None], boxes([2.5, 3.5, 30.0, 40.0], [12.0, 8.0, 36.0, 32.0])).grids
    assert torch.equal(alone[0], among[1])


def test_a_box_without_background_or_too_small_is_all_foreground() -> None:
    image, _ = scene()
    model = GrabCut(mask_size=8)
    masks = model.segment(image[None], boxes([0.0, 0.0, 64.0, 48.0], [5.0, 5.0, 6.0, 20.0])).grids
    assert (masks == 1).all()


def test_a_box_that_it_cannot_answer_is_the_box_where_that_is_asked_for() -> None:
    image, _ = scene()
    flat = torch.full_like(image, 90)  # no color differs from those around it
    images, here = torch.stack((image, flat)), [12.0, 8.0, 36.0, 32.0]
    given = Instances.of_boxes([torch.tensor([here])] * 2, [torch.zeros(1, dtype=torch.int64)] * 2, 1)
    alone = GrabCut(mask_size=24).segment(images, given)
    backed = GrabCut(mask_size=24, fallback="box").segment(images, given)
    assert alone.answered.tolist() == [True, False] and not alone.grids[1].any()
    assert backed.answered.tolist() == [True, True] and (backed.grids[1] == 1).all()
    assert torch.equal(backed.grids[0], alone.grids[0])


def test_a_fallback_is_part_of_the_identity_and_its_absence_is_not() -> None:
    plain, backed = GrabCut().spec.identity, GrabCut(fallback="box").spec.identity
    assert backed == f"{plain}, the box where it has no answer" and "fallback" not in plain
