"""The three groups of classes every number is given for."""

from __future__ import annotations

import numpy as np

from deepmac_distill.dataset.classes import Classes

SPLITS = ("all", "seen", "unseen")


def split_classes(classes: Classes) -> dict[str, np.ndarray]:
    """Labels (int64, ascending) of all classes, of those with masks in training, and of those without."""
    seen = np.array(classes.seen, dtype=bool)
    return {"all": np.arange(len(seen)), "seen": np.flatnonzero(seen), "unseen": np.flatnonzero(~seen)}
