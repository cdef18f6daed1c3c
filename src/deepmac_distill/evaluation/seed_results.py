"""What several trainings find that differ in their seed alone, as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepmac_distill.chain import Role
from deepmac_distill.evaluation.results import Report
from deepmac_distill.evaluation.splits import BySplit


@dataclass(frozen=True, slots=True)
class SeedsReport:
    """The report over several seeds: `report/summary.json` beside their runs."""

    seeds: tuple[int, ...]
    report: Report  # means over the seeds; intervals hold training noise
    class_mean_iou: Mapping[Role, Mapping[str, BySplit[float | None]]]  # of each seed, in given boxes
