"""Mask R-CNN on data in which some masks are missing: what it learns from, what it gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deepmac_distill.config import MaskRcnnConfig
from deepmac_distill.errors import ConfigError, ContractError
from deepmac_distill.models.build import build_model
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.models.mask_targets import masks_over
from deepmac_distill.structures import Batch, Instances

CANVAS, CLASSES = 64, 3
NARROW = {
    "backbone": "tiny",
    "backbone_width": 8,
    "fpn_channels": 8,
    "mask_channels": 8,
    "mask_crop": 7,
    "anchor_sizes": (8, 16, 32, 64),
    "proposals": 50,
    "sampled_proposals": 32,
    "box_channels": 16,
}


def narrow(**changes) -> MaskRcnn:
    torch.manual_seed(0)
    return build_model(MaskRcnnConfig(**(NARROW | changes)), CLASSES, load_weights=False)


def make_batch(model: MaskRcnn, has_mask: list[list[bool]], seed: int = 0) -> Batch:
    """Images of noise; the objects are quarters of the canvas, their masks left halves."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[4.0, 4.0], [34.0, 4.0], [4.0, 34.0], [34.0, 34.0]])
    boxes = [torch.cat((corners, corners + 26), dim=1)[: len(some)] for some in has_mask]
    labels = [torch.arange(len(some)) % CLASSES for some in has_mask]
    instances = Instances.of_boxes(boxes, labels, model.target_mask_size)
    known = torch.tensor([flag for some in has_mask for flag in some], dtype=torch.bool)
    masks = torch.zeros_like(instances.masks)
    masks[:, :, : model.target_mask_size // 2] = 255
    masks[~known] = 0
    images = torch.randint(0, 256, (len(has_mask), 3, CANVAS, CANVAS), generator=generator).byte()
    return Batch(
        images=images,
        image_sizes=torch.full((len(has_mask), 2), CANVAS),
        image_ids=tuple(range(len(has_mask))),
        instances=replace(instances, masks=masks, has_mask=known, mask_weight=known.float()),
    )


def losses(model: MaskRcnn, batch: Batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # proposals are sampled
    return model(batch)


def mask_branch(model: MaskRcnn) -> list[torch.nn.Parameter]:
    return list(model.mask_head.parameters())


@pytest.mark.parametrize("mask_boxes", ["gt", "proposals+gt"])
@pytest.mark.parametrize("class_agnostic", [True, False])
def test_every_parameter_has_a_gradient(mask_boxes: str, class_agnostic: bool) -> None:
    model = narrow(mask_boxes=mask_boxes, class_agnostic=class_agnostic).train()
    found = losses(model, make_batch(model, [[True, False, True], [False, True]]))
    assert found.keys() == {"objectness", "proposal_box", "class", "box", "mask"}
    sum(found.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("mask_boxes", ["gt", "proposals+gt"])
def test_the_content_of_a_missing_mask_is_never_read(mask_boxes: str) -> None:
    model = narrow(mask_boxes=mask_boxes).train()
    batch = make_batch(model, [[True, False], [False, True]])
    masks = batch.instances.masks.clone()
    masks[~batch.instances.has_mask] = 200
    other = replace(batch, instances=replace(batch.instances, masks=masks))
    first, second = losses(model, batch), losses(model, other)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("mask_boxes", ["gt", "proposals+gt"])
@pytest.mark.parametrize("has_mask", [[[False, False], [False]], [[], []]])
def test_without_masks_the_mask_branch_learns_nothing(mask_boxes: str, has_mask: list) -> None:
    model = narrow(mask_boxes=mask_boxes).train()
    found = losses(model, make_batch(model, has_mask))
    sum(found.values()).backward()
    assert found["mask"] == 0
    assert all(p.grad is not None and not p.grad.any() for p in mask_branch(model))


def test_boxes_without_masks_train_the_boxes_all_the_same() -> None:
    model = narrow().train()
    with_masks = losses(model, make_batch(model, [[True, True], [True]]))
    without = losses(model, make_batch(model, [[False, False], [False]]))
    for name in ("objectness", "proposal_box", "class", "box"):
        assert torch.equal(with_masks[name], without[name])


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_one_batch_can_be_learned_by_heart(class_agnostic: bool) -> None:
    model = narrow(mask_boxes="gt", class_agnostic=class_agnostic, mask_channels=16).train()
    batch = make_batch(model, [[True] * 3, [True] * 3])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    found = model.eval().segment(batch.images, batch.instances).grids > 0.5
    truth = batch.instances.masks > 127
    iou = (found & truth).sum() / (found | truth).sum()
    assert iou > 0.9


def test_masks_follow_the_labels_only_where_they_belong_to_classes() -> None:
    for class_agnostic in (True, False):
        model = narrow(class_agnostic=class_agnostic).eval()
        batch = make_batch(model, [[True, True]])
        other = replace(batch.instances, class_index=(batch.instances.class_index + 1) % CLASSES)
        same = torch.equal(
            model.segment(batch.images, batch.instances).grids, model.segment(batch.images, other).grids
        )
        assert same == class_agnostic == model.spec.class_agnostic


def test_two_images_at_once_are_two_images_alone_in_any_order_of_boxes() -> None:
    model = narrow().eval()
    batch = make_batch(model, [[True] * 3, [True] * 2])
    shuffled = torch.tensor([3, 0, 4, 2, 1])
    together = model.segment(batch.images, batch.instances.select(shuffled)).grids
    alone = [
        model.segment(
            batch.images[i : i + 1],
            replace(some, image_index=torch.zeros_like(some.image_index)),
        ).grids
        for i, some in enumerate(batch.instances.select(batch.instances.image_index == i) for i in (0, 1))
    ]
    torch.testing.assert_close(together, torch.cat(alone)[shuffled], rtol=1e-4, atol=1e-5)


def test_detections_keep_to_their_image_and_their_number() -> None:
    model = narrow(score_threshold=0.0).eval()
    batch = make_batch(model, [[True], [True]])
    sizes = torch.tensor([[64, 40], [30, 64]])
    found = model.detect(batch.images, sizes, max_detections=7)
    assert torch.bincount(found.image_index, minlength=2).tolist() == [7, 7]
    height, width = sizes[found.image_index].T
    assert (found.boxes[:, 2] <= width).all() and (found.boxes[:, 3] <= height).all()
    assert (found.boxes >= 0).all() and ((found.class_index >= 0) & (found.class_index < CLASSES)).all()
    for i in (0, 1):
        scores = found.scores[found.image_index == i]
        assert torch.equal(scores, scores.sort(descending=True).values)
    assert found.masks.shape == (14, 14, 14) and ((found.masks >= 0) & (found.masks <= 1)).all()


def test_objects_below_the_least_score_cost_no_mask() -> None:
    model = narrow(score_threshold=0.0).eval()
    batch = make_batch(model, [[True], [True]])
    every = model.detect(batch.images, batch.image_sizes, max_detections=7)
    least = float(every.scores.sort().values[4])
    masked: list[int] = []
    model.mask_head.register_forward_hook(lambda _, crops, __: masked.append(len(crops[0])))
    found = model.detect(batch.images, batch.image_sizes, 7, least)
    kept = every.scores >= least
    assert masked == [len(found.scores)] == [int(kept.sum())] and masked[0] < 14
    for name in ("image_index", "boxes", "class_index", "scores"):
        assert torch.equal(getattr(found, name), getattr(every, name)[kept])
    torch.testing.assert_close(found.masks, every.masks[kept], rtol=1e-4, atol=1e-5)
    assert len(model.detect(batch.images, batch.image_sizes, 7, 1.0).masks) == 0


def test_a_step_in_half_precision_stays_finite() -> None:
    model = narrow().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses(model, make_batch(model, [[True, True], [True]]))
    sum(found.values()).backward()
    assert all(value.isfinite() for value in found.values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = make_batch(model, [[True]])
        assert model.eval().detect(batch.images, batch.image_sizes).masks.isfinite().all()


def test_boxes_move_by_less_than_a_hundredth_of_a_side_in_half_precision() -> None:
    """They are decoded in float32 from rounded regressions, here as large as those of a trained model."""
    model = narrow().eval()
    torch.nn.init.normal_(model.roi.box_predictor.bbox_pred.bias, std=2.0)
    batch = make_batch(model, [[True] * 4])
    features, rois = model.backbone(batch.images), [batch.instances.boxes]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model._box_branch(features, rois, batch.images)[1]
    exact = model._box_branch(features, rois, batch.images)[1]
    found, wanted = (model.roi.box_coder.decode(part, rois) for part in (rounded, exact))
    side = (wanted[..., 2:] - wanted[..., :2]).amax(-1, keepdim=True)
    assert not torch.equal(rounded, exact) and ((found - wanted).abs() / side).max() < 0.01


def test_a_mask_seen_from_its_own_box_is_itself_and_from_elsewhere_nothing() -> None:
    grid = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[10.0, 20.0, 38.0, 48.0]])
    torch.testing.assert_close(masks_over(grid, box, box, 28), grid)
    assert not masks_over(grid, box, box + 60, 14).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchor_sizes": (8, 16)}, "got 2 sizes, expected 4"),
        ({"backbone": "no-such-net"}, "no-such-net"),
        ({"backbone": "resnet18", "backbone_weights": "wheel"}, "tf_efficientnet_lite0"),
        ({"mask_head": "hourglass-52"}, "multiple of 32"),
        ({"mask_head": "fully-connected-2"}, "expected one of default"),
        ({"mask_head": "weight-transfer", "class_agnostic": True}, "class_agnostic"),
    ],
)
def test_what_cannot_be_built_is_a_config_error(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        narrow(**changes)


@pytest.mark.parametrize("backbone", ["resnet18", "hourglass-52", "tf_efficientnet_lite0", "spinenet-49"])
def test_any_backbone_will_do(backbone: str) -> None:
    model = narrow(backbone=backbone, anchor_sizes=(8, 16, 32, 64, 128)).train()
    batch = make_batch(model, [[True], [True]])
    big = replace(batch, images=torch.zeros(2, 3, 128, 128, dtype=torch.uint8))
    assert all(value.isfinite() for value in losses(model, big).values())


# Counted on networks rebuilt from the authors' code; 256 channels in, the deconvolution included.
DEEP_MARC_HEADS = {
    "default-batch-norm": (256, 14, 2_625_537),
    "hourglass-20": (64, 16, 5_682_177),
    "hourglass-52": (64, 32, 23_606_145),
    "hourglass-100": (64, 32, 47_372_673),
}


@pytest.mark.parametrize("name", DEEP_MARC_HEADS)
def test_the_heads_of_deep_marc_have_the_published_sizes(name: str) -> None:
    channels, crop, parameters = DEEP_MARC_HEADS[name]
    config = MaskRcnnConfig(mask_head=name, mask_channels=channels, mask_crop=crop, class_agnostic=True)
    with torch.device("meta"):
        head = build_model(config, 80, load_weights=False).mask_head
        assert head(torch.empty(2, 256, crop, crop)).shape == (2, 1, 2 * crop, 2 * crop)
    assert sum(p.numel() for p in head.parameters()) == parameters


def test_weight_transfer_reaches_classes_without_masks_and_spares_the_boxes() -> None:
    """Classes 0 and 1 have masks, class 2 has none: its mask changes all the same (Mask^X)."""
    model = narrow(mask_boxes="gt", mask_head="weight-transfer").train()
    batch = make_batch(model, [[True, True, False], [True, True, False]])
    unseen = batch.instances.select(batch.instances.class_index == 2)
    before = model.eval().segment(batch.images, unseen).grids
    model.train()
    optimizer = torch.optim.SGD(model.mask_head.transfer.parameters(), lr=0.1)  # nothing that classes share
    losses(model, batch)["mask"].backward()
    assert model.roi.box_predictor.cls_score.weight.grad is None
    assert all(p.grad is not None for p in model.mask_head.parameters())
    optimizer.step()
    assert not torch.equal(model.eval().segment(batch.images, unseen).grids, before)


def test_without_weight_transfer_a_class_without_masks_learns_nothing_of_its_own() -> None:
    model = narrow(mask_boxes="gt").train()
    batch = make_batch(model, [[True, True, False], [True, True, False]])
    losses(model, batch)["mask"].backward()
    logits = [part for part in model.mask_head.modules() if isinstance(part, torch.nn.Conv2d)][-1]
    own = logits.weight.grad.flatten(1).abs().sum(1)  # a row for each class
    assert (own > 0).tolist() == [True, True, False]


def test_weight_transfer_takes_a_class_s_own_box_weights() -> None:
    model = narrow(mask_head="weight-transfer").eval()
    batch = make_batch(model, [[True, True, True]])
    before = model.segment(batch.images, batch.instances).grids
    with torch.no_grad():
        model.roi.box_predictor.cls_score.weight[1 + 1] += 1.0  # row 0 is the background
        model.roi.box_predictor.bbox_pred.weight[4 * 3] += 1.0  # the first of class 2
    changed = (model.segment(batch.images, batch.instances).grids != before).flatten(1).any(1)
    assert changed.tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["default-batch-norm", "hourglass-10", "resnet-4", "bottleneck-6"])
def test_a_deep_head_learns_from_given_boxes(name: str) -> None:
    model = narrow(mask_boxes="gt", class_agnostic=True, mask_head=name, mask_crop=8).train()
    batch = make_batch(model, [[True] * 3, [True] * 3])
    optimizer = torch.optim.Adam(model.mask_head.parameters(), lr=1e-2)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        values.append(losses(model, batch)["mask"])
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.5 * values[0]


def test_resnet50_fpn_has_the_parameters_of_torchvisions() -> None:
    """44,401,393 with 91 classes, less a mask of the background, and the classifier's bias and scale."""
    import torchvision

    with torch.device("meta"):
        ours = build_model(MaskRcnnConfig(), 90, load_weights=False)
        theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(theirs) - count(ours) == 256 + 1


@pytest.mark.parametrize("part", ["backbone", "rpn", "roi.box_predictor"])
def test_what_is_no_number_is_an_error_and_not_an_image_without_objects(part: str) -> None:
    model = narrow().eval()
    for parameter in model.get_submodule(part).parameters():
        parameter.data.fill_(float("nan"))
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(ContractError, match=r"detect: .*: got values that are not finite"):
        model.detect(images, torch.tensor([[64, 64]]), 10, 0.0)
