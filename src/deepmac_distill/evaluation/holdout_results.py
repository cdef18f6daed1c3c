"""What a hold-out finds, as types: everything that its `summary.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepmac_distill.evaluation.results import Interval


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One teacher on the classes that were hidden from it; IoU is a fraction, its mean that over classes."""

    name: str
    trained: bool  # once in each fold
    seconds: float  # of one fold's training, if it is trained, and of drawing all masks
    classes: int  # hidden from it, with a mask
    instances: int
    iou: Interval
    instance_mean_iou: float | None
    minus_ellipse: Interval
    boundary_iou: float | None
    elsewhere_classes: int  # whose masks it saw in other data, or may have seen
    elsewhere_iou: float | None  # class-mean of these

    @property
    def ranked(self) -> bool:
        """Whether every class that was tried is hidden from it: a winner rests on nothing else."""
        return self.classes > 0 and not self.elsewhere_classes


@dataclass(frozen=True, slots=True)
class HeldOutPair:
    """Two teachers on the classes that are hidden from both, paired."""

    a: str
    b: str
    classes: int
    a_minus_b: Interval


@dataclass(frozen=True, slots=True)
class HeldOutClass:
    """One class: information, on which no choice rests."""

    name: str
    fold: int
    instances: int
    ellipse: float
    iou: Mapping[str, float]  # mean of each teacher
    shown_elsewhere_to: tuple[str, ...]  # names of teachers


@dataclass(frozen=True, slots=True)
class Holdout:
    """Everything that a hold-out finds: `holdout/summary.json`."""

    folds: tuple[tuple[str, ...], ...]
    quick: bool
    seed: int
    ellipse: float | None  # class-mean IoU of the ellipses inscribed in the boxes, over all classes
    teachers: tuple[HeldOut, ...]
    pairs: tuple[HeldOutPair, ...]  # of ranked teachers, each once
    per_class: tuple[HeldOutClass, ...]
    winner: str | None  # the cheapest of the best; None: no teacher is ranked
    tied: tuple[str, ...]  # all that are as good as the best one, if there are several

    def of(self, name: str) -> HeldOut | None:
        """The figures of a teacher; None where it was not tried."""
        return next((teacher for teacher in self.teachers if teacher.name == name), None)
