"""What `deepmac results` finds, as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepmac_distill.evaluation.results import Interval


@dataclass(frozen=True, slots=True)
class SplitFigures:
    """One row's figures of one split; AP is the mean over seeds, its interval their noise alone."""

    classes: int
    instances: int
    iou: Interval  # in given boxes, mean over classes
    mask_AP: Interval
    box_AP: Interval
    mask_AP_of_each_seed: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One recipe's model: all its seeds."""

    name: str
    evaluation: str  # the folder in the run, such as evaluate-teacher
    runs: tuple[str, ...]
    seeds: tuple[int, ...]  # empty: a run that is not one of several seeds
    how: str  # how the model looked and where its masks were cut
    versions: Mapping[str, str | None]  # package -> version
    figures: Mapping[str, SplitFigures]  # by split


@dataclass(frozen=True, slots=True)
class Collected:
    """What `deepmac results --json` writes."""

    splits: tuple[str, ...]  # of every row
    rows: tuple[Row, ...]
