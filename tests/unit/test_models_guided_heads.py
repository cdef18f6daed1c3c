"""ShapeMask's and CPMask's branches: what they are built of, what they learn from, what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deepmac_distill.config import MaskRcnnConfig
from deepmac_distill.errors import ConfigError
from deepmac_distill.models.build import build_model
from deepmac_distill.models.cpmask import CpMaskHead, affinity_loss, boundaries
from deepmac_distill.models.guided_mask_heads import GuidedMaskHead
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.models.shapemask import SHAPES, ShapeMaskHead, common_shapes
from deepmac_distill.structures import Batch, Instances

CANVAS, CLASSES = 64, 3
NARROW = {
    "backbone": "tiny",
    "backbone_width": 8,
    "fpn_channels": 16,
    "mask_channels": 16,
    "mask_crop": 8,
    "anchor_sizes": (8, 16, 32, 64),
    "proposals": 50,
    "sampled_proposals": 32,
    "box_channels": 16,
    "class_agnostic": True,
}
OTHERS = {"shapemask": {"shape", "coarse_mask"}, "cpmask": {"boundary", "affinity"}}
RATES = {"shapemask": 1e-2, "cpmask": 3e-3}  # without batch norm a higher one jumps


def narrow(name: str, **changes) -> MaskRcnn:
    torch.manual_seed(0)
    model = build_model(MaskRcnnConfig(**(NARROW | changes), mask_head=name), CLASSES, load_weights=False)
    if isinstance(model.mask_head, ShapeMaskHead):
        model.mask_head.learn_shapes(halves(8))
    return model


def halves(size: int) -> torch.Tensor:
    masks = torch.zeros(2, size, size)
    masks[0, :, : size // 2] = 1
    masks[1, : size // 2] = 1
    return masks


def make_batch(model: MaskRcnn, has_mask: list[list[bool]]) -> Batch:
    """Images whose objects are bright on the left half, which is their mask."""
    corners = torch.tensor([[4.0, 4.0], [34.0, 4.0], [4.0, 34.0], [34.0, 34.0]])
    boxes = [torch.cat((corners, corners + 26), dim=1)[: len(some)] for some in has_mask]
    instances = Instances.of_boxes(
        boxes, [torch.arange(len(some)) % CLASSES for some in has_mask], model.target_mask_size
    )
    known = torch.tensor([flag for some in has_mask for flag in some], dtype=torch.bool)
    masks = torch.zeros_like(instances.masks)
    masks[:, :, : model.target_mask_size // 2] = 255
    masks[~known] = 0
    images = torch.randint(0, 90, (len(has_mask), 3, CANVAS, CANVAS), generator=torch.Generator()).byte()
    for i, (x1, y1, x2, y2) in zip(
        instances.image_index.tolist(), instances.boxes.long().tolist(), strict=True
    ):
        images[i, :, y1:y2, x1 : (x1 + x2) // 2] = 200
    return Batch(
        images=images,
        image_sizes=torch.full((len(has_mask), 2), CANVAS),
        image_ids=tuple(range(len(has_mask))),
        instances=replace(instances, masks=masks, has_mask=known, mask_weight=known.float()),
    )


def losses(model: MaskRcnn, batch: Batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # proposals are sampled
    return model(batch)


def mask_losses(name: str, found: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(found[key] for key in {"mask", *OTHERS[name]})


@pytest.mark.parametrize("mask_boxes", ["gt", "proposals+gt"])
@pytest.mark.parametrize("name", OTHERS)
def test_every_parameter_has_a_gradient_and_every_loss_a_unit(name: str, mask_boxes: str) -> None:
    model = narrow(name, mask_boxes=mask_boxes).train()
    found = losses(model, make_batch(model, [[True, False, True], [False, True]]))
    assert found.keys() == {"objectness", "proposal_box", "class", "box", "mask"} | OTHERS[name]
    assert set(model.loss_units) == {"mask"} | OTHERS[name] and len(set(model.loss_units.values())) == 1
    sum(found.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", OTHERS)
def test_the_content_of_a_missing_mask_is_never_read(name: str) -> None:
    model = narrow(name, mask_boxes="gt").train()
    batch = make_batch(model, [[True, False], [False, True]])
    masks = batch.instances.masks.clone()
    masks[~batch.instances.has_mask] = 200
    other = replace(batch, instances=replace(batch.instances, masks=masks))
    first, second = losses(model, batch), losses(model, other)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("has_mask", [[[False, False], [False]], [[], []]])
@pytest.mark.parametrize("name", OTHERS)
def test_without_masks_the_mask_branch_learns_nothing(name: str, has_mask: list) -> None:
    model = narrow(name, mask_boxes="gt").train()
    found = losses(model, make_batch(model, has_mask))
    sum(found.values()).backward()
    assert mask_losses(name, found) == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.mask_head.parameters())


@pytest.mark.parametrize("name", OTHERS)
def test_a_scene_can_be_learned_by_heart(name: str) -> None:
    model = narrow(name, mask_boxes="gt").train()
    batch = make_batch(model, [[True] * 3, [True] * 3])
    optimizer = torch.optim.Adam(model.parameters(), lr=RATES[name])
    first = mask_losses(name, losses(model, batch)).item()
    for _ in range(60):
        optimizer.zero_grad()
        mask_losses(name, model(batch)).backward()
        optimizer.step()
    assert mask_losses(name, losses(model, batch)).item() < first / 3
    found = model.eval().segment(batch.images, batch.instances).grids > 0.5
    truth = batch.instances.masks > 127
    assert (found & truth).sum() / (found | truth).sum() > 0.9


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("name", OTHERS)
def test_learning_and_inference_give_the_same_logits(name: str, count: int) -> None:
    head = narrow(name).eval().mask_head
    assert isinstance(head, GuidedMaskHead)
    crops, masks = torch.randn(count, 16, 8, 8), torch.rand(count, 16, 16)
    logits, others = head.learn(crops, masks)
    torch.testing.assert_close(logits, head(crops))
    assert logits.shape == (count, 1, 16, 16) and set(others) == set(head.loss_names) == OTHERS[name]
    assert all(one.shape == (count,) and (one >= 0).all() for one in others.values())


@pytest.mark.parametrize("name", OTHERS)
def test_losses_are_float32_under_autocast_and_near_those_without(name: str) -> None:
    head = narrow(name).train().mask_head
    crops, masks = torch.randn(4, 16, 8, 8), torch.rand(4, 16, 16)
    _, exact = head.learn(crops, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, rounded = head.learn(crops, masks)
    assert logits.shape == (4, 1, 16, 16)
    for key, one in rounded.items():
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, exact[key], rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_head": "shapemask", "class_agnostic": False}, "class_agnostic: got false, expected true"),
        ({"mask_head": "cpmask", "class_agnostic": False}, "class_agnostic: got false, expected true"),
        ({"mask_head": "cpmask", "mask_channels": 8}, "mask_channels: got 8, expected 16 for cpmask"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(MaskRcnnConfig(**(NARROW | changes)), CLASSES, load_weights=False)


def test_masks_of_one_shape_end_in_one_cluster() -> None:
    noise = 0.1 * torch.rand(60, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = (halves(8).repeat(30, 1, 1) + noise).clamp(0, 1)
    masks[:, 0, 0] = torch.arange(60) / 60  # the first centers are two of one shape
    found = common_shapes(masks, 2)
    assert {tuple(shape.round().flatten().tolist()) for shape in found[:, 1:]} == {
        tuple(half.flatten().tolist()) for half in halves(8)[:, 1:]
    }
    assert torch.equal(found, common_shapes(masks, 2))


def test_with_few_masks_each_is_a_shape() -> None:
    found = common_shapes(halves(8), SHAPES)
    assert found.shape == (SHAPES, 8, 8)
    assert {tuple(shape.flatten().tolist()) for shape in found} == {
        tuple(half.flatten().tolist()) for half in halves(8)
    }


def test_a_shapemask_finds_a_mean_of_its_shapes() -> None:
    head = ShapeMaskHead(4, 8, 8)
    head.learn_shapes(torch.zeros(0, 8, 8))
    assert not head.shapes.any()  # no mask: they stay
    head.learn_shapes(halves(8))
    shape, coarse, fine = head._found(torch.randn(5, 4, 8, 8))
    assert coarse.shape == (5, 1, 8, 8) and fine.shape == (5, 1, 16, 16)
    torch.testing.assert_close(shape[:, :4, :4], torch.ones(5, 4, 4))  # what both halves cover
    assert not shape[:, 4:, 4:].any()
    assert "shapes" in head.state_dict()


def test_a_boundary_is_where_a_mask_ends_and_not_where_the_crop_does() -> None:
    found = boundaries(halves(8))
    assert found[0].sum(dim=0).tolist() == [0, 0, 0, 8, 8, 0, 0, 0]
    assert found[1].sum(dim=1).tolist() == [0, 0, 0, 8, 8, 0, 0, 0]
    assert not boundaries(torch.ones(1, 8, 8)).any() and not boundaries(torch.zeros(1, 8, 8)).any()


def test_affinity_is_what_leaves_the_object() -> None:
    inside = halves(4)[:1] > 0  # 8 of 16 cells
    even = torch.full((1, 16, 16), 1 / 16)
    kept = inside.flatten(1).float()[:, None].expand(1, 16, 16) / 8
    assert affinity_loss(even, inside).tolist() == [0.5]
    assert affinity_loss(kept, inside).tolist() == [0.0]
    assert affinity_loss(even, torch.zeros_like(inside)).tolist() == [0.0]


def test_the_supervision_of_attention_reaches_its_queries_and_keys() -> None:
    head = CpMaskHead(16)
    _, others = head.learn(torch.randn(2, 16, 8, 8), torch.rand(2, 16, 16).round())
    others["affinity"].sum().backward()
    for part in (head.attention.query, head.attention.key):
        assert part[0].weight.grad is not None and part[0].weight.grad.any()
    assert head.attention.value[0].weight.grad is None
