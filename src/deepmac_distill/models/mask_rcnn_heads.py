"""Mask heads of Mask R-CNN: (N, C, S, S) crops to (N, masks, 2S, 2S) logits, through a deconvolution.

Deep-MARC (arXiv:2104.00613, section 5) puts the bodies of Deep-MAC's mask heads here; Mask^X R-CNN is
what it compares with.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from deepmac_distill.models.blocks import BatchNorm
from deepmac_distill.models.mask_heads import MaskHead

DEFAULT_LAYERS = 4


def default_roi_mask_head(in_channels: int, masks: int, channels: int = 256) -> nn.Sequential:
    """torchvision's: four 3 x 3 convolutions without batch norm, a deconvolution, a 1 x 1 convolution."""
    body = MaskRCNNHeads(in_channels, [channels] * DEFAULT_LAYERS, dilation=1)
    return nn.Sequential(body, MaskRCNNPredictor(channels, channels, masks))


class RoiMaskHead(nn.Module):
    """A body that keeps the resolution, then a deconvolution with batch norm, and a 1 x 1 convolution.

    Args:
        body: (N, in, S, S) to (N, body_channels, S, S).
        channels: of the deconvolution.
        masks: one, or as many as classes.
    """

    def __init__(self, body: nn.Module, body_channels: int, channels: int, masks: int) -> None:
        super().__init__()
        self.body = body
        widen = nn.ConvTranspose2d(body_channels, channels, 2, stride=2)
        self.upsample = nn.Sequential(widen, BatchNorm(channels), nn.ReLU(inplace=True))
        self.logits = nn.Conv2d(channels, masks, 1)
        for part in (widen, self.logits):
            _init_he(part, mode="fan_out")

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S) to (N, masks, 2S, 2S) logits."""
        logits: Tensor = self.logits(self.upsample(self.body(crops)))
        return logits


def batch_norm_roi_mask_head(in_channels: int, masks: int, channels: int = 256) -> RoiMaskHead:
    """The default of the paper's code: four 3 x 3 convolutions with bias and batch norm."""
    layers: list[nn.Module] = []
    for i in range(DEFAULT_LAYERS):
        conv = nn.Conv2d(channels if i else in_channels, channels, 3, padding=1)
        _init_he(conv, mode="fan_out")
        layers += [conv, BatchNorm(channels), nn.ReLU(inplace=True)]
    return RoiMaskHead(nn.Sequential(*layers), channels, channels, masks)


def deep_roi_mask_head(head: MaskHead, masks: int, channels: int) -> RoiMaskHead:
    """The body of one of Deep-MAC's heads; `channels` of the deconvolution are its width, 64 in the paper."""
    return RoiMaskHead(head.body, head.logits.in_channels, channels, masks)


class WeightTransferHead(nn.Module):
    """Mask^X R-CNN (arXiv:1711.10370): a class's mask weights are predicted from its box weights.

    The best of that paper: class and box weights together, two layers with LeakyReLU, no gradient to the
    box branch, and a class-agnostic branch of two fully connected layers added to every class's mask.

    Args:
        in_channels: of the crops.
        channels: of the convolutions, the deconvolution and the transfer's hidden layer.
        crop_size: cells a side of the crops; the fully connected branch is made for one size.
        weight_channels: of a class's box weights.
        hidden: width of the fully connected branch.
    """

    def __init__(
        self, in_channels: int, channels: int, crop_size: int, weight_channels: int, hidden: int = 1024
    ) -> None:
        super().__init__()
        self.body = MaskRCNNHeads(in_channels, [channels] * DEFAULT_LAYERS, dilation=1)
        widen = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.upsample = nn.Sequential(widen, nn.ReLU(inplace=True))
        first, second = nn.Linear(weight_channels, channels), nn.Linear(channels, channels)
        self.transfer = nn.Sequential(first, nn.LeakyReLU(0.1), second)
        cells = (2 * crop_size) ** 2
        narrow, to_cells = nn.Linear(channels * cells, hidden), nn.Linear(hidden, cells)
        self.agnostic = nn.Sequential(nn.Flatten(), narrow, nn.ReLU(inplace=True), to_cells)
        for layer in (widen, first, second, narrow):
            _init_he(layer, mode="fan_in")
        nn.init.normal_(to_cells.weight, std=0.001)
        nn.init.zeros_(to_cells.bias)

    def forward(self, crops: Tensor, class_weights: Tensor) -> Tensor:
        """(N, C, S, S) crops and (K, W) box weights of the classes to (N, K, 2S, 2S) logits."""
        features = self.upsample(self.body(crops))  # (N, channels, 2S, 2S)
        of_class = self.transfer(class_weights.detach())  # (K, channels)
        masks = torch.einsum("kc,nchw->nkhw", of_class, features)
        agnostic: Tensor = self.agnostic(features)
        return masks + agnostic.view(len(crops), 1, *features.shape[-2:])


def _init_he(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, mode: Literal["fan_in", "fan_out"]) -> None:
    """He normal kernels and zero biases."""
    nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
