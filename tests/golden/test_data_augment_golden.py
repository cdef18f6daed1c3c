from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision.ops import roi_align
from torchvision.transforms.v2 import functional as tv

from deepmac_distill.data.augment import Colors, change_colors, evaluation_view, training_view
from deepmac_distill.geometry.boxes import has_area
from deepmac_distill.geometry.rasterize import rasterize_polygons

MUTED = torch.randint(60, 190, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def difference(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


def test_resizing_is_pillows_bilinear_to_one_level() -> None:
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((64, 48), Image.Resampling.BILINEAR)
    ours = evaluation_view(90, 120, 64).image(image)[:, :48]
    assert difference(ours, torch.from_numpy(np.array(pillow)).permute(2, 0, 1)) <= 1


def test_saturation_is_torchvisions_to_one_level() -> None:
    for factor in (0.8, 1.0, 1.25):
        assert (
            difference(change_colors(MUTED, Colors(saturation=factor)), tv.adjust_saturation(MUTED, factor))
            <= 1
        )


def test_contrast_is_about_the_mean_of_each_channel() -> None:
    pixels = MUTED.double()
    mean = pixels.mean(dim=(1, 2), keepdim=True)
    for factor in (0.8, 1.25):
        expected = (mean + factor * (pixels - mean)).round().clamp(0, 255)
        assert difference(change_colors(MUTED, Colors(contrast=factor)), expected) <= 1


def test_the_hue_turns_the_chroma_as_torchvision_does_but_keeps_luma() -> None:
    luma = torch.tensor([0.299, 0.587, 0.114])
    for share in (-0.05, 0.02, 0.05):
        ours = change_colors(MUTED, Colors(hue=share)).float() - MUTED.float()
        theirs = tv.adjust_hue(MUTED, share).float() - MUTED.float()
        chroma = theirs - torch.einsum("c,chw->hw", luma, theirs)
        assert torch.cosine_similarity(ours.flatten(), chroma.flatten(), dim=0) > 0.95
        assert 0.9 < ours.norm() / chroma.norm() < 1.1
        assert torch.einsum("c,chw->hw", luma, ours).abs().max() < 1.0  # rounding


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_a_mask_grid_is_what_roi_align_reads_off_the_mask_seen_through_the_same_view() -> None:
    height, width, size = 90, 120, 16
    polygon = np.array([20.0, 15, 100, 30, 85, 80, 55, 45, 30, 75])
    fine = coco_mask.frPyObjects([(polygon * 8).tolist()], height * 8, width * 8)
    pixels = coco_mask.decode(fine)[..., 0].reshape(height, 8, width, 8).mean((1, 3)) * 255
    pixels = pixels.round().astype(np.uint8)
    mask = torch.from_numpy(pixels).expand(3, -1, -1)
    rng = np.random.default_rng(4)
    seen_boxes = 0
    for _ in range(20):
        view = training_view(rng, height, width, size_px=128, color_jitter=False)
        visible = view.clip(np.array([[20.0, 15, 100, 80]]))
        if not has_area(visible).all():
            continue
        grid = view.grids(rasterize_polygons([polygon], visible[0], size)[None])[0]
        canvas = view.image(mask)[None, :1].float()
        box = torch.from_numpy(view.to_canvas(visible)).float()
        read = roi_align(canvas, [box], size, sampling_ratio=4, aligned=True)[0, 0]
        # What roi_align reads is the mask blurred by about a pixel, so cells on the edge differ.
        assert (read - torch.from_numpy(grid.copy()).float()).abs().mean() < 0.01 * 255
        seen_boxes += 1
    assert seen_boxes >= 10
