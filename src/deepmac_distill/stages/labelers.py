"""Which teacher labels which boxes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.config.holdout import RECIPE, name_of
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.labels.export import SEEN_MASK_CLASSES
from deepmac_distill.models.load import Source
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.sources import source_of


@dataclass(frozen=True)
class Labeler:
    """A teacher and the boxes that it draws in."""

    name: str  # in the rows
    source: Source
    wanted: NDArray[np.bool_]  # (N,) of the data set
    inputs: dict[str, Any]  # what its masks depend on, beside those of the first one's source

    def facts(self) -> dict[str, Any]:
        """What a label file records of it."""
        return {
            **self.source.inputs("teacher"),
            "teacher_card": self.source.provenance(),
            "look": dataclasses.asdict(self.source.look),
            SEEN_MASK_CLASSES: None
            if self.source.seen_mask_classes is None
            else list(self.source.seen_mask_classes),
        }


def labelers_of(job: Job, annotations: Annotations, teacher: Path | None) -> list[Labeler]:
    """Who draws in the boxes without a human's mask.

    Args:
        teacher: weights that label in place of the run's own.
    """
    wanted = ~annotations.has_human_mask()
    if teacher is not None:
        return [Labeler(name_of(str(teacher)), source_of(job, teacher), wanted, {})]
    return [Labeler(RECIPE, source_of(job, "teacher"), wanted, {})]
