"""A Segment Anything as a teacher: images encoded in batches, the boxes of each image decoded in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.errors import ConfigError
from deepmac_distill.structures import Instances
from deepmac_distill.teachers.sam.families import FAMILIES
from deepmac_distill.teachers.sam.files import located
from deepmac_distill.teachers.sam.grids import grids_over_boxes, shares_outside
from deepmac_distill.teachers.sam.network import load_network, read_config

Embeddings = dict[str, Tensor | list[Tensor]]  # of a batch of images, as the models take them back


class Sam:
    """SAM, SAM 2, SAM 3 (its tracker), SAM-HQ or EdgeTAM: one mask for each box, and its own IoU of it.

    It asks for one mask and not for the best of three: three are for prompts that may mean a part or a whole
    (arXiv:2304.02643, section 3), and a box means one object. SAM 2 and later fall back to the best of three
    by themselves where the one is unstable. Nothing of the logits is smoothed and no piece is removed. Box
    and logits stay in single precision under autocast: in bfloat16 a corner would be off by pixels.

    Weights are loaded with the first images, and only from safetensors; no code of a model is ever run.

    Args:
        model: a folder that `transformers` wrote, or a name on the hub: "facebook/sam2.1-hiera-small".
        revision: of a name on the hub: branch, tag or commit.
        mask_size: cells a side of a mask.
        boxes_at_once: of one image, decoded together; bounds memory.

    Raises:
        ConfigError: an argument is out of range, transformers is not installed, or a file is missing.
        CheckpointError: the configuration cannot be read.
    """

    def __init__(
        self, model: str, revision: str = "main", mask_size: int = 64, boxes_at_once: int = 64
    ) -> None:
        for name, text in (("model", model), ("revision", revision)):
            if not isinstance(text, str) or not text:
                raise ConfigError(f"sam: {name}: got {text!r}, expected a name")
        for name, got, least in (("mask_size", mask_size, 4), ("boxes_at_once", boxes_at_once, 1)):
            if not isinstance(got, int) or got < least:
                raise ConfigError(f"sam: {name}: got {got!r}, expected a whole number of at least {least}")
        files = located(model, revision)
        if files.model_type not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ConfigError(f"sam: model: {model}: got a {files.model_type}, expected one of {known}")
        self._family, self._files = FAMILIES[files.model_type], files
        self._config = read_config(files.folder, self._family)
        self._network: Any = None
        self._boxes_at_once = boxes_at_once
        self.spec = ModelSpec(
            mask_size=mask_size,
            input_size_px=self._config.prompt_encoder_config.image_size,
            stretched=self._family.stretched,
            padding_rgb=_rounded(self._family.mean),
            seen_mask_classes=None,  # masks of everything, without names
            identity=f"sam {files.model_type} {files.version}, {mask_size} cells",
        )

    @torch.no_grad()
    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        """Probabilities over the boxes, the model's own IoU, and the share of each mask outside its box.

        Args:
            images: (B, 3, S, S) uint8 RGB; those without a box are not looked at.
            instances: N boxes; their classes and masks are not looked at.

        Raises:
            CheckpointError: the weights cannot be read or lack a tensor.
        """
        n, size, px = len(instances), self.spec.mask_size, images.shape[-1]
        grids = torch.zeros(n, size, size, device=images.device)
        iou, outside = (torch.zeros(n, device=images.device) for _ in range(2))
        for at, logits, scores in self.decoded(images, instances):
            boxes = instances.boxes[at]
            grids[at] = grids_over_boxes(logits, boxes, px, size)
            outside[at] = shares_outside(logits, boxes, px)
            iou[at] = scores.clamp(0, 1)  # a linear head in SAM and SAM-HQ
        return SegmentedMasks(grids, torch.ones_like(iou, dtype=torch.bool), iou, outside)

    @torch.no_grad()
    def decoded(self, images: Tensor, instances: Instances) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The model's own masks, some boxes of an image at a time.

        Yields:
            (n,) positions of the boxes, (n, s, s) logits over the whole canvas and (n,) scores.
        """
        network = self._on(images.device)
        shown, which = torch.unique(instances.image_index, return_inverse=True)
        embeddings = self._encoded(network, images[shown]) if len(shown) else {}
        for image in range(len(shown)):
            one = {name: _of_image(some, image) for name, some in embeddings.items()}
            for at in torch.split(torch.nonzero(which == image)[:, 0], self._boxes_at_once):
                with torch.autocast(images.device.type, enabled=False):
                    found = network(input_boxes=instances.boxes[at][None], multimask_output=False, **one)
                yield at, found.pred_masks[0, :, 0].float(), found.iou_scores[0, :, 0].float()

    def _on(self, device: torch.device) -> Any:
        if self._network is None:
            self._network = load_network(self._files, self._family, self._config)
        return self._network.to(device)

    def _encoded(self, network: Any, images: Tensor) -> Embeddings:
        mean, std = (
            images.new_tensor(some, dtype=torch.float32) for some in (self._family.mean, self._family.std)
        )
        found = network.get_image_embeddings((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        if isinstance(found, tuple):  # SAM-HQ: its decoder reads the first of the inner maps
            return {"image_embeddings": found[0].float(), "intermediate_embeddings": [found[1][0].float()]}
        levels = [level.float() for level in found] if isinstance(found, list) else found.float()
        return {"image_embeddings": levels}


def _of_image(embeddings: Tensor | list[Tensor], image: int) -> Tensor | list[Tensor]:
    if isinstance(embeddings, list):
        return [level[image : image + 1] for level in embeddings]
    return embeddings[image : image + 1]


def _rounded(color: tuple[float, ...]) -> tuple[int, int, int]:
    red, green, blue = (round(value) for value in color)
    return red, green, blue
