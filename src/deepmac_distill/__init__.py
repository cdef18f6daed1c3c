"""Masks for all your boxes, and a fast detector-segmenter for every class.

    import deepmac_distill

    model = deepmac_distill.load("runs/mine")
    masks = model.masks("photo.jpg", [[40, 60, 240, 240]])

The names below are the Python interface; docs/python.md shows each at work. To read the code, start at
``stages/``: one function per stage, and the only place where the parts meet.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepmac_distill.api.model import BoxMasks, Model, Objects, load
    from deepmac_distill.api.run import Run
    from deepmac_distill.contract import BoxSegmenter, Detector, ModelSpec, SegmentedMasks, Trainable
    from deepmac_distill.dataset.dataset import Dataset
    from deepmac_distill.evaluation.results import Evaluation
    from deepmac_distill.labels.label_file import Labels
    from deepmac_distill.labels.rules import Rules
    from deepmac_distill.look import Look

__version__ = "0.2.0"  # the only place; the package metadata read it here

__all__ = [
    "BoxMasks",
    "BoxSegmenter",
    "Dataset",
    "Detector",
    "Evaluation",
    "Labels",
    "Look",
    "Model",
    "ModelSpec",
    "Objects",
    "Rules",
    "Run",
    "SegmentedMasks",
    "Trainable",
    "load",
]
_MODULES = {
    "BoxMasks": "api.model",
    "Model": "api.model",
    "Objects": "api.model",
    "Run": "api.run",
    "load": "api.model",
    "BoxSegmenter": "contract",
    "Dataset": "dataset.dataset",
    "Detector": "contract",
    "Evaluation": "evaluation.results",
    "Labels": "labels.label_file",
    "Look": "look",
    "ModelSpec": "contract",
    "Rules": "labels.rules",
    "SegmentedMasks": "contract",
    "Trainable": "contract",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line starts without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*globals(), *__all__])
