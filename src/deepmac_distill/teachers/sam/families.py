"""The kinds of Segment Anything that `transformers` holds, and what differs between them."""

from __future__ import annotations

from dataclasses import dataclass

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_EVEN = ((127.5,) * 3, (127.5,) * 3)


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind is built and what it takes."""

    model_class: str  # in transformers
    stretched: bool  # an image fills the square canvas; else it keeps its shape and the rest is `mean`
    mean: tuple[float, ...]  # RGB, 0 to 255; as the publishers' preprocessing has it
    std: tuple[float, ...]


_SAM = Family("SamModel", False, *_IMAGENET)  # arXiv:2304.02643
_SAM_HQ = Family("SamHQModel", False, *_IMAGENET)  # arXiv:2306.01567
_SAM_2 = Family("Sam2Model", True, *_IMAGENET)  # arXiv:2408.00714
_EDGE_TAM = Family("EdgeTamModel", True, *_IMAGENET)  # arXiv:2501.07256
# Of SAM 3 the tracker: `Sam3Model` takes boxes for examples of what to find everywhere.
_SAM_3 = Family("Sam3TrackerModel", True, *_EVEN)

# By `model_type` of a config.json. Weights of video models hold the image model.
FAMILIES = {
    "sam": _SAM,
    "sam_hq": _SAM_HQ,
    "sam2": _SAM_2,
    "sam2_video": _SAM_2,
    "edgetam": _EDGE_TAM,
    "edgetam_video": _EDGE_TAM,
    "sam3_tracker": _SAM_3,
    "sam3_tracker_video": _SAM_3,
    "sam3_video": _SAM_3,
}
