"""CenterNet's targets, losses and decoding on maps small enough to check by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from deepmac_distill.models.centernet import (
    CenterHeads,
    PredictionHead,
    boxes_of,
    cells_inside,
    center_targets,
    find_peaks,
    focal_loss,
    patches_at,
)
from deepmac_distill.structures import Batch, Instances


def test_decode_finds_hand_made_peaks_and_their_boxes() -> None:
    probs = torch.full((2, 3, 6, 8), 0.01)
    probs[0, 2, 1, 3], probs[0, 2, 1, 4], probs[0, 0, 5, 7] = 0.9, 0.8, 0.7  # the second is no maximum
    probs[1, 1, 4, 0] = 0.6
    peaks = find_peaks(probs, max_detections=2)
    strong = peaks.scores > 0.5
    assert peaks.image_index[strong].tolist() == [0, 0, 1]
    assert peaks.class_index[strong].tolist() == [2, 0, 1]
    assert peaks.cells[strong].tolist() == [[1, 3], [5, 7], [4, 0]]
    sizes = torch.tensor([[2.0, 4.0], [4.0, 4.0], [-1.0, 2.0]])  # height, width in cells
    offsets = torch.tensor([[0.5, 0.25], [0.5, 0.5], [0.5, 0.5]])  # y, x
    boxes = boxes_of(peaks.cells[strong], sizes, offsets, torch.tensor([[24, 32]] * 3))
    # Center (y 1.5, x 3.25) * 4 = (6, 13), 8 high and 16 wide; then clipped; then a negative height.
    assert boxes.tolist() == [[5, 2, 21, 10], [22, 14, 32, 24], [0, 18, 6, 18]]


def test_zero_is_never_a_peak() -> None:
    assert len(find_peaks(torch.zeros(2, 3, 4, 4), max_detections=5).scores) == 0


def test_what_the_targets_say_is_what_decoding_gives_back() -> None:
    boxes = torch.tensor([[3.0, 5.0, 30.0, 21.0], [40.0, 8.0, 47.5, 31.0]])
    n = len(boxes)
    instances = Instances(
        torch.tensor([0, 1]),
        torch.arange(n),
        boxes,
        torch.tensor([1, 0]),
        torch.zeros(n, 4, 4, dtype=torch.uint8),
        torch.zeros(n, dtype=torch.bool),
        torch.ones(n),
    )
    sizes = torch.tensor([[32, 48], [32, 48]])
    targets = center_targets(
        Batch(torch.zeros(2, 3, 32, 48, dtype=torch.uint8), sizes, (0, 1), instances), num_classes=2
    )
    peaks = find_peaks(targets.heatmap, max_detections=1)
    assert torch.equal(peaks.cells, targets.cells) and peaks.scores.tolist() == [1.0, 1.0]
    assert torch.equal(peaks.class_index, instances.class_index)
    torch.testing.assert_close(boxes_of(peaks.cells, targets.sizes, targets.offsets, sizes), boxes)


def test_padding_has_no_weight() -> None:
    inside = cells_inside(torch.tensor([[9, 16], [32, 1]]), h=8, w=8)
    assert inside[0, 0].sum(0).tolist() == [3, 3, 3, 3, 0, 0, 0, 0]  # 9 px reach into the third row
    assert inside[1, 0].sum(0).tolist() == [8, 0, 0, 0, 0, 0, 0, 0]
    logits, target = torch.randn(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    changed = torch.where(inside, logits, logits + 5)
    assert torch.equal(focal_loss(logits, target, inside), focal_loss(changed, target, inside))


def test_focal_loss_is_the_papers_formula() -> None:
    """Against a loop in float64, saturated logits included."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=g) * 8
    target = torch.rand(2, 3, 4, 5, generator=g)
    target[0, 1, 2, 3] = target[1, 0, 0, 0] = target[1, 2, 3, 4] = 1.0
    inside = torch.rand(2, 1, 4, 5, generator=g) < 0.8
    inside[0, 0, 2, 3] = inside[1, 0, 0, 0] = inside[1, 0, 3, 4] = True
    total = 0.0
    for logit, t, counts in zip(
        logits.flatten().tolist(), target.flatten().tolist(), inside.expand_as(target).flatten(), strict=True
    ):
        p = min(max(1 / (1 + math.exp(-logit)), 1e-4), 1 - 1e-4)
        term = (1 - p) ** 2 * math.log(p) if t == 1 else (1 - t) ** 4 * p**2 * math.log(1 - p)
        total -= term if counts else 0.0
    assert float(focal_loss(logits, target, inside)) == pytest.approx(total, rel=1e-5)


def test_a_head_at_a_cell_is_the_dense_head_there() -> None:
    torch.manual_seed(0)
    head = PredictionHead(5, 7, 3).double()
    torch.nn.init.normal_(head.hidden.bias)
    dense_in = torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    cell_in = dense_in.detach().clone().requires_grad_()
    image_index, cells = torch.tensor([1, 0, 1, 1]), torch.tensor([[0, 0], [3, 5], [2, 2], [2, 2]])
    dense = head(dense_in)[image_index, :, cells[:, 0], cells[:, 1]]
    sparse = head.at(patches_at(cell_in, image_index, cells))
    torch.testing.assert_close(sparse, dense)
    weight = torch.randn_like(dense)
    (dense * weight).sum().backward()
    (sparse * weight).sum().backward()
    torch.testing.assert_close(cell_in.grad, dense_in.grad)


def test_a_fresh_heatmap_is_almost_empty() -> None:
    heads = CenterHeads(4, 8, num_classes=3)
    probs = heads.heatmap(torch.zeros(1, 4, 3, 3)).sigmoid()
    torch.testing.assert_close(probs, torch.full((1, 3, 3, 3), 1 / (1 + math.exp(2.19))))
    assert F.relu(heads.size(torch.zeros(1, 4, 3, 3))).sum() == 0
