"""What training and inference of a narrow Deep-MAC must and must not do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.errors import ContractError
from deepmac_distill.models.backbones import STRIDE_PX
from deepmac_distill.models.blocks import MIN_VALUES, BatchNorm
from deepmac_distill.models.build import build_model
from deepmac_distill.models.centernet import CenterHeads, Peaks, find_peaks
from deepmac_distill.models.deepmac import DeepMac, mask_loss, masked_instances
from deepmac_distill.models.mask_heads import build_mask_head
from deepmac_distill.structures import Batch, Detections, Instances

NARROW = {
    "backbone": "tiny",
    "backbone_width": 8,
    "head_channels": 8,
    "mask_head": "hourglass-10",
    "mask_width": 8,
    "mask_size": 16,
    "pixel_embedding": 4,
    "instance_embedding": 4,
}


def narrow(**changes: object) -> DeepMac:
    torch.manual_seed(0)
    return build_model(DeepMacConfig(**(NARROW | changes)), num_classes=3, load_weights=False)


def make_batch(has_mask: list[list[bool]], size: int = 64, cells: int = 16) -> Batch:
    """One image per row, one box per entry."""
    g = torch.Generator().manual_seed(1)
    known = torch.tensor([known for row in has_mask for known in row], dtype=torch.bool)
    n, images = len(known), len(has_mask)
    sides = 12 + torch.rand(n, 2, generator=g) * 20
    corners = torch.rand(n, 2, generator=g) * (size - sides)
    masks = torch.randint(0, 256, (n, cells, cells), generator=g, dtype=torch.uint8)
    instances = Instances(
        image_index=torch.repeat_interleave(torch.arange(images), torch.tensor([len(r) for r in has_mask])),
        rows=torch.arange(n),
        boxes=torch.cat((corners, corners + sides), dim=1),
        class_index=torch.randint(0, 3, (n,), generator=g),
        masks=masks * known[:, None, None],
        has_mask=known,
        mask_weight=torch.ones(n),
    )
    pixels = torch.randint(0, 256, (images, 3, size, size), generator=g, dtype=torch.uint8)
    return Batch(pixels, torch.full((images, 2), size), tuple(range(images)), instances)


def gradients(model: DeepMac, batch: Batch) -> dict[str, torch.Tensor | None]:
    model.zero_grad(set_to_none=True)
    torch.stack(list(model(batch).values())).sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_canvases_whose_objects_are_not_all_known_train_no_detection() -> None:
    """A window around one box: its neighbors are there and not among the instances."""
    model = narrow()
    batch = make_batch([[True], [True]])
    whole, part = model(batch), model(replace(batch, complete=False))
    assert set(whole) == {"center", "size", "offset", "mask"} and set(part) == {"mask"}
    found = gradients(model, replace(batch, complete=False))
    assert all(value is None for name, value in found.items() if ".center." in name)


def test_unseen_masks_cannot_leak() -> None:
    """Garbage in the masks and weights of boxes without one: same losses, gradients and statistics."""
    batch = make_batch([[True, False, False], [False, True]])
    hidden = ~batch.instances.has_mask
    garbage = replace(
        batch.instances,
        masks=torch.where(hidden[:, None, None], 255 - batch.instances.masks // 3, batch.instances.masks),
        mask_weight=torch.where(hidden, 1e9, batch.instances.mask_weight),
    )
    clean, dirty = narrow(), narrow()
    clean_gradients = gradients(clean, batch)
    dirty_gradients = gradients(dirty, replace(batch, instances=garbage))
    assert all(torch.equal(clean_gradients[name], dirty_gradients[name]) for name in clean_gradients)
    buffers = dict(dirty.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in clean.named_buffers())


@pytest.mark.parametrize(
    "has_mask", [[[True, False], [True]], [[True], []], [[False], [False]], [[], []]], ids=str
)
@pytest.mark.parametrize("detection", [True, False])
def test_every_parameter_has_a_finite_gradient_whatever_the_batch(has_mask, detection) -> None:
    for name, gradient in gradients(narrow(detection=detection), make_batch(has_mask)).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name


def test_a_batch_without_masks_teaches_the_mask_head_nothing() -> None:
    model = narrow()
    assert model(make_batch([[False, False]]))["mask"] == 0
    for name, gradient in gradients(model, make_batch([[False, False]])).items():
        assert not ("mask_head" in name and gradient.any()), name


def test_every_stack_is_supervised_and_the_mask_head_is_shared() -> None:
    model = narrow(backbone="hourglass-104")
    found = gradients(model, make_batch([[True, True]], size=128))
    assert len(model.heads) == 2
    for stack in range(2):
        for head in ("center.heatmap", "center.size", "center.offset", "pixel", "instance"):
            assert found[f"heads.{stack}.{head}.output.weight"].any()


@pytest.mark.parametrize("backbone", ["tiny", "hourglass-104", "resnet18"])
def test_two_images_together_give_what_each_gives_alone(backbone: str) -> None:
    model = narrow(backbone=backbone, pyramid_channels=(16, 8, 8)).eval()
    batch = make_batch([[True, True], [False, True, False]], size=128)
    order = torch.tensor([4, 0, 3, 1, 2])  # not grouped by image
    together = model.segment(batch.images, batch.instances.select(order)).grids
    detections = model.detect(batch.images, batch.image_sizes, max_detections=5)
    for i in range(2):
        mine = batch.instances.image_index[order] == i
        alone = replace(batch.instances.select(order[mine]), image_index=torch.zeros_like(order[mine]))
        picture = batch.images[i : i + 1]
        torch.testing.assert_close(together[mine], model.segment(picture, alone).grids, rtol=0, atol=1e-5)
        found = model.detect(picture, batch.image_sizes[i : i + 1], max_detections=5)
        here = detections.image_index == i
        torch.testing.assert_close(detections.boxes[here], found.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(detections.masks[here], found.masks, rtol=0, atol=1e-4)


def test_segment_does_not_look_at_labels_or_masks() -> None:
    model, batch = narrow().eval(), make_batch([[True, False]])
    blind = replace(
        batch.instances,
        class_index=batch.instances.class_index.flip(0),
        masks=255 - batch.instances.masks,
        has_mask=~batch.instances.has_mask,
    )
    assert torch.equal(
        model.segment(batch.images, batch.instances).grids, model.segment(batch.images, blind).grids
    )


def test_no_boxes_give_no_masks() -> None:
    batch = make_batch([[]])
    assert narrow().eval().segment(batch.images, batch.instances).grids.shape == (0, 16, 16)


def test_detections_lie_in_the_image_best_first() -> None:
    model, batch = narrow().eval(), make_batch([[], []])
    sizes = torch.tensor([[40, 64], [64, 23]])
    found = model.detect(batch.images, sizes, max_detections=20)
    limits = sizes[found.image_index].flip(1)
    assert len(found.scores) > 0
    assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= limits).all()
    assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
    for i in range(2):
        scores = found.scores[found.image_index == i]
        assert len(scores) <= 20 and (scores.diff() <= 0).all()
    assert ((found.masks >= 0) & (found.masks <= 1)).all()


def test_objects_below_the_least_score_cost_no_mask() -> None:
    model, batch = narrow().eval(), make_batch([[], []])
    every = model.detect(batch.images, batch.image_sizes, max_detections=20)
    least = float(every.scores.sort().values[len(every.scores) // 2])  # a score of theirs: it stays
    masked: list[int] = []
    model.mask_head.register_forward_hook(lambda _, crops, __: masked.append(len(crops[0])))
    found = model.detect(batch.images, batch.image_sizes, 20, least)
    kept = every.scores >= least
    assert sum(masked) == len(found.scores) == int(kept.sum()) < len(every.scores)
    for name in ("image_index", "boxes", "class_index", "scores"):
        assert torch.equal(getattr(found, name), getattr(every, name)[kept])
    torch.testing.assert_close(found.masks, every.masks[kept], rtol=1e-4, atol=1e-5)
    assert len(model.detect(batch.images, batch.image_sizes, 20, 1.0).masks) == 0


def test_a_model_without_detection_refuses_to_detect() -> None:
    model, batch = narrow(detection=False).eval(), make_batch([[True]])
    assert model(batch).keys() == {"mask"}
    with pytest.raises(ValueError, match="no detection heads"):
        model.detect(batch.images, batch.image_sizes)


def test_the_cap_takes_the_first_masks_of_each_image() -> None:
    batch = make_batch([[True, False, True, True], [True]])
    assert masked_instances(batch, 16, limit_per_image=2).rows.tolist() == [0, 2, 4]
    assert masked_instances(batch, 16).rows.tolist() == [0, 2, 3, 4]


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="8 cells a side, expected 16"):
        narrow()(make_batch([[True]], cells=8))


def test_mask_loss_is_a_mean_over_cells_then_instances_then_images() -> None:
    """Against a loop over cells in float64, with weights, soft targets and an image without masks."""
    instances = masked_instances(make_batch([[True, True, False], [], [True]], cells=4), 4)
    instances = replace(instances, mask_weight=torch.tensor([1.0, 0.25, 3.0]))
    logits = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    means = []
    for n in range(3):
        cells = zip(
            logits[n].double().sigmoid().flatten(), instances.masks[n].double().flatten() / 255, strict=True
        )
        costs = [-(t * p.log() + (1 - t) * (1 - p).log()) for p, t in cells]
        means.append(float(instances.mask_weight[n]) * float(sum(costs)) / 16)
    expected = ((means[0] + means[1]) / 2 + 0 + means[2]) / 3
    assert float(mask_loss(logits, instances, 3)) == pytest.approx(expected, rel=1e-5)


def test_loss_weights_multiply_their_terms() -> None:
    batch = make_batch([[True, False]])
    plain = narrow(center_weight=1.0, size_weight=1.0, offset_weight=1.0, mask_weight=1.0)(batch)
    default = narrow()(batch)
    for name, weight in {"center": 1.0, "size": 0.1, "offset": 1.0, "mask": 5.0}.items():
        torch.testing.assert_close(default[name], weight * plain[name])


def test_losses_stay_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses = narrow()(make_batch([[True, False], [True]]))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def equal_neighbors(found: Detections) -> int:
    """Pairs of detections of one class and one score whose centers are in neighboring cells."""
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    near = torch.cdist(centers, centers, p=torch.inf) < 2 * STRIDE_PX
    for facts in (found.image_index, found.class_index, found.scores):
        near &= facts[:, None] == facts
    return int(near.triu(1).sum())


def test_bfloat16_makes_no_second_peak_beside_a_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a smooth image, whose neighboring cells are alike. Autocast on a CPU rounds as it does on a GPU."""
    model = narrow().eval()
    blurred = F.interpolate(
        torch.rand(2, 3, 8, 8, generator=torch.manual_seed(0)), (128, 128), mode="bicubic"
    )
    images, sizes = (blurred.clamp(0, 1) * 255).to(torch.uint8), torch.full((2, 2), 128)

    def found() -> int:
        with torch.autocast("cpu", torch.bfloat16):
            return equal_neighbors(model.detect(images, sizes, 1000))

    assert equal_neighbors(model.detect(images, sizes, 1000)) == found() == 0

    def rounded(self: CenterHeads, features: Tensor, inside: Tensor, number: int) -> Peaks:
        return find_peaks(self.heatmap(features).float().sigmoid() * inside, number)

    monkeypatch.setattr(CenterHeads, "peaks", rounded)
    assert found() > 5  # what is mended


def test_boxes_keep_their_precision_under_autocast() -> None:
    """A box of some 200 cells: bfloat16 would round its sides to whole cells."""
    heads = CenterHeads(8, 8, 3)
    torch.nn.init.constant_(heads.size.output.bias, 200.3)
    features, image_index, cells = (
        torch.randn(1, 8, 9, 9),
        torch.zeros(4, dtype=int),
        torch.tensor([[4, 4]] * 4),
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = heads.boxes_at(features.bfloat16(), image_index, cells)
    exact = heads.boxes_at(features.bfloat16().float(), image_index, cells)
    assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))
    assert not torch.equal(exact[0], exact[0].bfloat16().float())


@pytest.mark.parametrize("values", [1, 2, MIN_VALUES - 1])
def test_few_values_per_channel_are_normalized_by_running_statistics(values: int) -> None:
    norm = BatchNorm(2)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.fill_(4.0)
    x = torch.tensor([3.0, 2.0]).view(1, 2, 1, 1).repeat(1, 1, 1, values)
    torch.testing.assert_close(norm(x), torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand_as(x))
    assert norm.running_mean.tolist() == [1.0, 2.0] and norm.running_var.tolist() == [4.0, 4.0]


def test_more_values_are_normalized_as_torch_does_bit_for_bit() -> None:
    ours, torchs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(MIN_VALUES, 3, 1, 1)
    assert torch.equal(ours(x), torchs(x)) and torch.equal(ours.running_var, torchs.running_var)
    assert torch.equal(ours.eval()(x[:1]), torchs.eval()(x[:1]))


@pytest.mark.parametrize("masks", [1, 2, 3, 4, 8])
def test_the_gradient_of_a_deep_hourglass_stays_small_however_few_the_masks(masks: int) -> None:
    """Batch norm over the 2 or 3 values of their 1 x 1 maps gave norms of 1e3 to 1e10."""
    torch.manual_seed(0)
    head = build_mask_head("hourglass-52", in_channels=6, width=8).train()
    loss = F.binary_cross_entropy_with_logits(head(torch.randn(masks, 6, 32, 32)), torch.rand(masks, 32, 32))
    loss.backward()
    assert torch.nn.utils.get_total_norm([p.grad for p in head.parameters()]) < 20


@pytest.mark.parametrize("choice", ["masked", "all"])
def test_boxes_without_a_mask_pass_batch_norm_where_all_boxes_do(choice: str) -> None:
    batch, means = make_batch([[True, False], [False]]), []
    for factor in (1.0, 0.5):
        moved = torch.where(batch.instances.has_mask[:, None], 1.0, factor) * batch.instances.boxes
        model = narrow(batch_norm_boxes=choice)
        model(replace(batch, instances=replace(batch.instances, boxes=moved)))
        means.append(model.mask_head.body[0][1].running_mean)
    assert torch.equal(*means) == (choice == "masked")


@pytest.mark.parametrize("has_mask", [[[True, False], [False]], [[False], [False]], [[], []]])
def test_boxes_without_a_mask_are_not_learned_from_where_all_boxes_pass(has_mask: list[list[bool]]) -> None:
    batch = make_batch(has_mask)
    model = narrow(batch_norm_boxes="all", detection=False)
    found = gradients(model, batch)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in found.values())
    assert any(gradient.any() for gradient in found.values()) == bool(batch.instances.has_mask.any())


def test_the_boxes_of_batch_norm_change_nothing_in_evaluation() -> None:
    batch, states = make_batch([[True, False], [False]]), []
    for choice in ("masked", "all"):
        model = narrow(batch_norm_boxes=choice).eval()
        states.append((model(batch)["mask"], model.segment(batch.images, batch.instances).grids))
    torch.testing.assert_close(states[0], states[1])


def test_a_batch_can_be_learned_by_heart() -> None:
    """Masks to within a few percent of cells and boxes found: every part that must learn does."""
    model, batch = narrow(), make_batch([[True, True], [True, False]])
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    shapes = torch.stack([x > y, (x - 8) ** 2 + (y - 8) ** 2 < 40, x < 6, x < 0]).to(torch.uint8) * 255
    labels = torch.tensor([0, 1, 2, 0])  # two boxes of one class and one center cell are one peak
    batch = replace(batch, instances=replace(batch.instances, masks=shapes, class_index=labels))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        losses = model(batch)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    model.eval()
    known = batch.instances.has_mask
    predicted = model.segment(batch.images, batch.instances).grids[known] > 0.5
    assert (predicted == (shapes[known] > 0)).float().mean() > 0.97
    found = model.detect(batch.images, batch.image_sizes, max_detections=2)
    order = torch.argsort(batch.instances.image_index * 4096 + batch.instances.boxes.sum(1))
    by_place = torch.argsort(found.image_index * 4096 + found.boxes.sum(1))
    torch.testing.assert_close(found.boxes[by_place], batch.instances.boxes[order], rtol=0, atol=3.0)
    assert torch.equal(found.class_index[by_place], batch.instances.class_index[order])


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18", "hourglass-52", "tiny"])
def test_what_can_be_pretrained_is_a_group_of_its_own(backbone: str) -> None:
    """The untrained top-down path of a pyramid must not learn at a pretrained extractor's rate."""
    with torch.device("meta"):
        model = build_model(DeepMacConfig(backbone=backbone, mask_head="resnet-4"), 3, load_weights=False)
    groups, names = model.parameter_groups(), {id(p): name for name, p in model.named_parameters()}
    pretrained = [names[id(parameter)] for parameter in groups["pretrained"]]
    assert pretrained and all(name.startswith("backbone.") for name in pretrained)
    parts = ("backbone.top.", "backbone.lateral.", "backbone.merge.")
    assert not any(name.startswith(parts) for name in pretrained)
    assert sorted(map(id, groups["pretrained"] + groups["new"])) == sorted(names)


@pytest.mark.parametrize("part", ["backbone", "heads.0.center.heatmap", "heads.0.center.size"])
def test_what_is_no_number_is_an_error_and_not_an_image_without_objects(part: str) -> None:
    model = narrow().eval()
    for parameter in model.get_submodule(part).parameters():
        parameter.data.fill_(float("nan"))
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(ContractError, match=r"detect: .*: got values that are not finite"):
        model.detect(images, torch.tensor([[64, 64]]), 10, 0.0)
