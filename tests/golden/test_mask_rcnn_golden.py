"""Our Mask R-CNN against torchvision's, with its weights."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import roi_align

from deepmac_distill.models.backbones import FpnBackbone
from deepmac_distill.models.feature_extractors import resnet_extractor
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.models.mask_rcnn_heads import default_roi_mask_head
from deepmac_distill.models.mask_targets import masks_over
from deepmac_distill.structures import Batch, Instances

CANVAS, CLASSES, CHANNELS = 96, 3, 16
ANCHORS = (8, 16, 32, 64, 128)


@pytest.fixture(scope="module")
def theirs() -> MaskRCNN:
    torch.manual_seed(0)
    body = torchvision.models.resnet18(weights=None)
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    backbone = BackboneWithFPN(body, layers, [64, 128, 256, 512], CHANNELS)
    model = MaskRCNN(
        backbone,
        None,  # the predictors below say how many
        min_size=CANVAS,
        max_size=CANVAS,
        rpn_anchor_generator=AnchorGenerator(tuple((a,) for a in ANCHORS), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_train=400,
        rpn_post_nms_top_n_train=400,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=200,
        box_batch_size_per_image=64,
        box_head=TwoMLPHead(CHANNELS * 49, 32),
        box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(32, 1 + CLASSES),
        mask_head=MaskRCNNHeads(CHANNELS, [8] * 4, 1),
        mask_predictor=MaskRCNNPredictor(8, 8, 1 + CLASSES),
        box_score_thresh=0.05,
    )
    return model.eval()


@pytest.fixture
def ours(theirs: MaskRCNN) -> MaskRcnn:
    model = MaskRcnn(
        FpnBackbone(resnet_extractor("resnet18"), CHANNELS),
        CLASSES,
        mask_head=default_roi_mask_head(CHANNELS, CLASSES, channels=8),
        anchor_sizes=ANCHORS,
        proposals=200,
        sampled_proposals=64,
        box_channels=32,
    )
    model.load_state_dict({_our_name(name): _without_background(name, t) for name, t in _named(theirs)})
    return model.eval()


def _named(theirs: MaskRCNN) -> list[tuple[str, Tensor]]:
    return [(name, t) for name, t in theirs.state_dict().items() if not name.startswith("backbone.body.fc")]


def _our_name(name: str) -> str:
    pairs = (
        ("backbone.body.", "backbone.extractor."),
        ("backbone.fpn.", "backbone.pyramid."),
        ("roi_heads.mask_head.", "mask_head.0."),
        ("roi_heads.mask_predictor.", "mask_head.1."),
        ("roi_heads.", "roi."),
    )
    return next((new + name.removeprefix(old) for old, new in pairs if name.startswith(old)), name)


def _without_background(name: str, tensor: Tensor) -> Tensor:
    return tensor[1:] if "mask_fcn_logits" in name else tensor


def images_of(seed: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, CANVAS, CANVAS), generator=torch.Generator().manual_seed(seed)).byte()


def test_boxes_scores_labels_and_masks_are_torchvisions(theirs: MaskRCNN, ours: MaskRcnn) -> None:
    images = images_of(1)
    with torch.no_grad():
        listed, _ = theirs.transform(list(images / 255))
        features = theirs.backbone(listed.tensors)
        proposals, _ = theirs.rpn(listed, features)
        expected, _ = theirs.roi_heads(features, proposals, listed.image_sizes)
    found = ours.detect(images, torch.full((2, 2), CANVAS))
    assert len(found.boxes) == sum(len(one["boxes"]) for one in expected) > 0
    for i, one in enumerate(expected):
        mine = found.image_index == i
        torch.testing.assert_close(found.boxes[mine], one["boxes"], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(found.scores[mine], one["scores"], rtol=1e-4, atol=1e-5)
        assert torch.equal(found.class_index[mine] + 1, one["labels"])
        torch.testing.assert_close(found.masks[mine], one["masks"][:, 0], rtol=1e-4, atol=1e-4)


def test_losses_are_torchvisions(theirs: MaskRCNN, ours: MaskRcnn) -> None:
    """With an object that fills the image, where half a pixel makes no difference to its mask."""
    images, boxes = images_of(2), torch.tensor([[0.0, 0.0, CANVAS, CANVAS]])
    full = torch.ones(1, CANVAS, CANVAS, dtype=torch.uint8)
    truth = [{"boxes": boxes, "labels": torch.tensor([k]), "masks": full} for k in (2, 1)]
    given = Instances.of_boxes([boxes, boxes], [torch.tensor([1]), torch.tensor([0])], ours.target_mask_size)
    given = Instances(
        given.image_index,
        given.rows,
        given.boxes,
        given.class_index,
        torch.full_like(given.masks, 255),
        torch.ones(2, dtype=torch.bool),
        torch.ones(2),
    )
    freeze_statistics(theirs.train())
    freeze_statistics(ours.train())
    theirs.transform.torch_choice = lambda sizes: sizes[0]  # draws no number, as we do not
    torch.manual_seed(3)
    expected = theirs(list(images / 255), truth)
    torch.manual_seed(3)
    found = ours(Batch(images, torch.full((2, 2), CANVAS), (1, 2), given))
    theirs.eval()
    names = {
        "objectness": "loss_objectness",
        "proposal_box": "loss_rpn_box_reg",
        "class": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert found.keys() == names.keys()
    for mine, other in names.items():
        # For us nothing lies beyond a box; an image-sized mask goes on to the rim of the image, unsoftened.
        rtol = 1e-3 if mine == "mask" else 1e-5
        torch.testing.assert_close(found[mine], expected[other], rtol=rtol, atol=1e-6)
    assert found["mask"] > 0 and found["proposal_box"] > 0


def freeze_statistics(model: torch.nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()


def test_targets_for_proposals_are_those_of_an_image_sized_mask() -> None:
    """A 40 x 40 px box of 40 cells: the grid holds the image's own pixels."""
    generator = torch.Generator().manual_seed(4)
    box = torch.tensor([20.0, 30.0, 60.0, 70.0])
    grid = (torch.rand(1, 40, 40, generator=generator) > 0.5).float()
    image = torch.zeros(1, 96, 96)
    image[:, 30:70, 20:60] = grid
    corners = box + 12 * (torch.rand(50, 4, generator=generator) - 0.5)
    ours = masks_over(grid.expand(50, -1, -1), box.expand(50, -1), corners, 14)
    exact = roi_align(image[None], [corners], (14, 14), aligned=True)[:, 0]
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-5)
    # torchvision's own targets are these half a pixel off, as our docstring says
    shifted = project_masks_on_boxes(image, corners - 0.5, torch.zeros(50, dtype=torch.int64), 14)
    torch.testing.assert_close(ours, shifted, rtol=0, atol=1e-5)
