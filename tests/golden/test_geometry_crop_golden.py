import pytest
import torch
from torchvision.ops import roi_align

from deepmac_distill.geometry.crop import crop_features


def boxes_on_a_map(generator: torch.Generator, n: int, height: int, width: int) -> torch.Tensor:
    """Random boxes, half of them cut by an edge of the map."""
    corners = torch.rand(n, 2, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    low, high = corners.sort(dim=1).values.clamp(0, 1).unbind(1)
    return torch.cat((low, high), dim=1) * torch.tensor([width, height, width, height])


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_crops_equal_roi_align_forward_and_backward(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 5, 24, 31, generator=generator, dtype=dtype, requires_grad=True)
    boxes = boxes_on_a_map(generator, 40, 24, 31).to(dtype)
    image_index = torch.randint(3, (40,), generator=generator)
    rois = torch.cat((image_index[:, None].to(dtype), boxes), dim=1)
    ours = crop_features(features, boxes, image_index, 8)
    theirs = roi_align(features, rois, (8, 8), 1.0, sampling_ratio=1, aligned=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    weights = torch.randn(ours.shape, generator=generator, dtype=dtype)
    (our_gradient,) = torch.autograd.grad((ours * weights).sum(), features)
    (their_gradient,) = torch.autograd.grad((theirs * weights).sum(), features)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=0, atol=10 * tolerance)
