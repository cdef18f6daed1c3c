"""Which data a model is evaluated on: the validation set, or classes hidden from training in its own file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.data.image_check import image_inputs
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import ConfigError
from deepmac_distill.evaluation.splits import Named, named_splits
from deepmac_distill.progress import Progress
from deepmac_distill.stages.image_preflight import require_images
from deepmac_distill.stages.job import Job, Split, training_split, validation_split
from deepmac_distill.stages.overlap import note_overlap
from deepmac_distill.stages.preflight import require_evaluable


@dataclass(frozen=True, slots=True)
class EvaluatedSet:
    """The truth, its images, and whether it is about hidden classes alone."""

    truth: Truth
    images: ImageStore
    hidden: tuple[str, ...] = ()  # classes of the training file; empty: this is the validation set
    splits: Named = field(default_factory=dict)  # of `evaluation.splits`

    @property
    def wanted(self) -> NDArray[np.bool_] | None:
        """(N,) annotations that are evaluated; None: all of them."""
        return self.truth.has_human_mask() if self.hidden else None

    def inputs(self, progress: Progress) -> dict[str, Any]:
        """What an evaluation depends on."""
        part = "train" if self.hidden else "val"
        return {
            "evaluation.splits": {name: list(members) for name, members in self.splits.items()},
            f"data.{part}_annotations": self.truth.fingerprint,
            **image_inputs(f"data.{part}_images", self.truth, self.images, progress),
        }

    def log_reading(self, job: Job, stage: str) -> None:
        """Note that a validation set was read; nothing is to be noted of the training file."""
        if not self.hidden:
            job.run.log_validation_reading(stage, self.truth.path)


def validation_set(job: Job) -> EvaluatedSet:
    """The validation set with all its masks.

    Raises:
        ConfigError: there is none.
        DataError: nothing can be evaluated on it.
    """
    data = require_split(job)
    truth = job.read(data.annotations, hide_unseen=False)
    require_evaluable(truth)
    require_images(job, truth, data.images)
    note_overlap(job, truth, data.images)
    return EvaluatedSet(truth, data.images, splits=splits_on(job, truth))


def hidden_set(job: Job) -> EvaluatedSet:
    """The classes that `data.hide` hides from training, in the training file.

    Raises:
        ConfigError: it hides none.
    """
    data = training_split(job)
    truth = job.read_hidden(data.annotations)
    require_images(job, truth, data.images)
    return EvaluatedSet(truth, data.images, job.hidden(data.annotations), splits_on(job, truth))


def splits_on(job: Job, truth: Truth) -> dict[str, tuple[str, ...]]:
    """The classes of each split of `evaluation.splits` in a set.

    Raises:
        DataError: a split names a class that the set does not have.
    """
    return named_splits(job.pipeline.evaluation.splits, truth.classes.names, str(truth.path))


def require_split(job: Job) -> Split:
    """Where the validation set is.

    Raises:
        ConfigError: nowhere.
    """
    data = validation_split(job)
    if data is None:
        raise ConfigError(
            "data.val_annotations: got nothing, expected a COCO file to evaluate on (--val-annotations)"
        )
    return data
