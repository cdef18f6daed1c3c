"""Calibrations at a label file: refused for another teacher's, else applied when rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.calibration.calibration import Calibration, read_calibration
from deepmac_distill.files import sha256_of_file, sha256_of_json
from deepmac_distill.labels.cut import Cut
from deepmac_distill.labels.recutting import CutOf
from deepmac_distill.labels.table import TEACHER

TRAIN = "teacher_card.train"  # in a provenance: keys of the training, which earlier versions did not keep
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The calibration in a file, for masks of its teacher."""

    calibration: Calibration
    sha256: str  # of the file

    @classmethod
    def read(cls, path: Path) -> Calibrated:
        """The calibration in a file.

        Raises:
            DataError: it cannot be read, or is of another version.
        """
        return cls(read_calibration(path), sha256_of_file(path))

    def estimate(self, rows: pa.Table, cut: Cut) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) expected IoU and its lower bound; NaN without the score that was calibrated.

        Raises:
            DataError: no mask of this cut was tried.
        """
        score = pc.fill_null(pc.cast(rows[self.calibration.score], pa.float64()), float("nan"))
        return self.calibration.quality(np.asarray(score), cut)


@dataclass(frozen=True, slots=True)
class CalibratedTeachers:
    """A `labels.quality.Quality`: each mask's is that of the calibration of the teacher that drew it."""

    by_teacher: Mapping[str | None, Calibrated]  # by the name in the column `teacher`; one or more

    @property
    def sha256(self) -> str:
        """Of the only file, or of what all are."""
        found = {str(name): one.sha256 for name, one in self.by_teacher.items()}
        return next(iter(found.values())) if len(found) == 1 else sha256_of_json(found)

    @property
    def by_quick_holdout(self) -> tuple[str, ...]:
        """Names of the teachers whose calibration is from trainings of fewer steps than the recipe has."""
        return tuple(str(name) for name, one in self.by_teacher.items() if one.calibration.held_out.quick)

    def estimate(self, rows: pa.Table, cut_of: CutOf) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) expected IoU and its lower bound; NaN where the teacher has no calibration, or no score.

        Raises:
            DataError: no mask of this cut was tried.
        """
        quality, low = (np.full(len(rows), np.nan) for _ in range(2))
        for name, calibrated in self.by_teacher.items():
            column = rows[TEACHER]
            own = np.flatnonzero(
                pc.is_null(column) if name is None else pc.fill_null(pc.equal(column, name), False)
            )
            quality[own], low[own] = calibrated.estimate(rows.take(pa.array(own)), cut_of(name))
        return quality, low


def other_teacher(calibration: Calibration, provenance: Mapping[str, Any]) -> str:
    """In what the teacher of a label file differs from the calibrated one; empty where it does not.

    >>> made = {"teacher_card.steps": 480, "look": {"mirror": True}}
    >>> differences_of(made, {"teacher_card": {"steps": 480}, "look": {"mirror": True}})
    ''
    >>> differences_of(made, {"teacher_card": {"steps": 9}, "look": {"mirror": True}})
    'teacher_card.steps: got 9, expected 480'

    A label file of an earlier version has no keys of the training, and is compared by the rest:

    >>> differences_of({"teacher_card.train.lr": 0.1}, {"teacher_card": {"train": {"lr": 0.2}}})
    'teacher_card.train.lr: got 0.2, expected 0.1'
    >>> differences_of({"teacher_card.train.lr": 0.1}, {"teacher_card": {"steps": 9}})
    ''
    """
    return differences_of(calibration.held_out.made_with, provenance)


def differences_of(made_with: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """The first of some facts, by keys joined with dots, that a provenance does not have; or empty."""
    of_earlier = _at(provenance, TRAIN) is _NOTHING
    for name, expected in made_with.items():
        if of_earlier and name.startswith(f"{TRAIN}."):
            continue
        got = _at(provenance, name)
        if got is _NOTHING:
            return f"{name}: got nothing, expected {expected!r}"
        if got != expected:
            return f"{name}: {_difference(got, expected)}"
    return ""


def _at(provenance: Mapping[str, Any], name: str) -> Any:
    """What is there by keys joined with dots."""
    got: Any = provenance
    for key in name.split("."):
        got = got.get(key, _NOTHING) if isinstance(got, Mapping) else _NOTHING
    return got


def _difference(got: Any, expected: Any) -> str:
    if isinstance(got, Mapping) and isinstance(expected, Mapping):
        for key in sorted(got.keys() | expected.keys()):
            if got.get(key, _NOTHING) != expected.get(key, _NOTHING):
                return f"{key}: got {got.get(key)!r}, expected {expected.get(key)!r}"
    return f"got {got!r}, expected {expected!r}"
