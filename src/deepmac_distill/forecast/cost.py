"""What training a model takes: memory that is counted exactly, and a few passes from which the rest follows.

A pass is one forward and backward of one batch. Its saved activations grow with the pixels of its images and
with the masks in it; so does its time. A few small passes show how fast.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from deepmac_distill.devices import wait_for
from deepmac_distill.models.activations import saved_activations
from deepmac_distill.structures import Batch, Instances
from deepmac_distill.training.precision import Precision
from deepmac_distill.training.state_bytes import StateBytes

# On saved activations: transient gradients, kernel workspaces, allocator fragmentation. On a CPU the peak of
# an hour's training, beyond what the program had before, was 1.8 times the saved activations of its fullest
# pass. On a GPU, whose allocator wastes less, it has not been measured; `mps` shares the CPU's memory.
MARGINS = {"cpu": 2.0, "cuda": 1.5, "mps": 2.0}
LIBRARIES_BYTES = 2**28  # what torch takes for itself once it works
INFERENCE_SHARE = 1 / 3  # of the time of a training pass: a backward costs about two forwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a pass is given."""

    images: int
    size_px: int  # side of the canvas
    masks: float  # of all images together; of many passes the mean or the most

    @property
    def pixels(self) -> int:
        """Of all canvases."""
        return self.images * self.size_px**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one forward and backward took."""

    load: Load
    saved_bytes: int  # saved activations: what the forward leaves for the backward, parameters not included
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How a pass grows; what it costs is linear in its images, their pixels and its masks."""

    fixed_bytes: float
    bytes_per_image: float  # whatever the canvas
    bytes_per_pixel: float
    bytes_per_mask: float
    seconds_per_pixel: float
    seconds_per_mask: float

    def saved_bytes(self, load: Load) -> float:
        """Saved activations of a pass, without margin."""
        grown = self.bytes_per_image * load.images + self.bytes_per_pixel * load.pixels
        return self.fixed_bytes + grown + self.bytes_per_mask * load.masks

    def seconds(self, load: Load) -> float:
        """Time of a pass."""
        return self.seconds_per_pixel * load.pixels + self.seconds_per_mask * load.masks


def rates_of(small: Pass, more_masks: Pass, more_images: Pass, largest: Pass) -> Rates:
    """How a pass grows, from four of them.

    Args:
        small: the one that the others are compared with.
        more_masks: as `small`, with more masks.
        more_images: as `small`, with more images.
        largest: as `small`, on a larger canvas, or `small` itself. Its time per pixel is taken: on a GPU a
            small pass costs what starting its kernels costs.
    """
    masks = more_masks.load.masks - small.load.masks
    per_mask = max(more_masks.saved_bytes - small.saved_bytes, 0) / masks
    seconds_per_mask = max(more_masks.seconds - small.seconds, 0.0) / masks

    def grown(other: Pass) -> float:  # bytes, but for those of the masks
        return max(
            other.saved_bytes - small.saved_bytes - per_mask * (other.load.masks - small.load.masks), 0.0
        )

    images, pixels = more_images.load.images - small.load.images, small.load.size_px**2
    per_further_image = grown(more_images) / images
    if largest.load.size_px > small.load.size_px:
        per_pixel = grown(largest) / (largest.load.pixels - small.load.pixels)
    else:
        per_pixel = per_further_image / pixels
    per_image = max(per_further_image - per_pixel * pixels, 0.0)
    rates = Rates(
        fixed_bytes=0.0,
        bytes_per_image=per_image,
        bytes_per_pixel=per_pixel,
        bytes_per_mask=per_mask,
        seconds_per_pixel=0.0,
        seconds_per_mask=seconds_per_mask,
    )
    rest = largest.seconds - seconds_per_mask * largest.load.masks
    return replace(
        rates,
        fixed_bytes=max(small.saved_bytes - rates.saved_bytes(small.load), 0.0),
        # Where noise makes the masks dearer than a whole pass, the pass counts and not the noise.
        seconds_per_pixel=(rest if rest > 0 else largest.seconds) / largest.load.pixels,
    )


def training_bytes(state: StateBytes, rates: Rates, load: Load, margin: float) -> float:
    """Memory of training with such passes; `margin` is one of `MARGINS`."""
    return state.total + margin * rates.saved_bytes(load) + LIBRARIES_BYTES


def measure_pass(model: nn.Module, batch: Batch, device: torch.device, autocast: torch.dtype | None) -> Pass:
    """One forward and backward of `model`, in training mode; its gradients are gone afterwards."""
    batch = batch.to(device)
    started = _now(device)
    with saved_activations(model) as saved:
        with Precision.of(device, autocast).autocast():
            losses: dict[str, Tensor] = model(batch)
        total = torch.stack(list(losses.values())).sum()
    torch.autograd.backward(total)
    seconds = _now(device) - started
    model.zero_grad(set_to_none=True)
    images, _, size_px, _ = batch.images.shape
    load = Load(images=images, size_px=size_px, masks=int(batch.instances.has_mask.sum()))
    return Pass(load=load, saved_bytes=sum(saved.values()), seconds=seconds)


def sample_batch(images: int, size_px: int, masks_per_image: int, mask_size: int) -> Batch:
    """Something to measure on: noise, with boxes of half the canvas's side, of class 0, all with a mask."""
    generator = torch.Generator().manual_seed(0)
    n = images * masks_per_image
    corners = torch.rand(n, 2, generator=generator) * size_px / 2
    return Batch(
        images=torch.randint(0, 256, (images, 3, size_px, size_px), generator=generator, dtype=torch.uint8),
        image_sizes=torch.full((images, 2), size_px),
        image_ids=tuple(range(images)),
        instances=Instances(
            image_index=torch.arange(images).repeat_interleave(masks_per_image),
            rows=torch.arange(n),
            boxes=torch.cat([corners, corners + size_px / 2], dim=1),
            class_index=torch.zeros(n, dtype=torch.int64),
            masks=torch.full((n, mask_size, mask_size), 255, dtype=torch.uint8),
            has_mask=torch.ones(n, dtype=torch.bool),
            mask_weight=torch.ones(n),
        ),
    )


def _now(device: torch.device) -> float:
    """The time when the device has done all it was given."""
    wait_for(device)
    return time.perf_counter()
