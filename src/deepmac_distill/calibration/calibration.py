"""A calibration of one teacher's masks: fitted on hidden classes, kept as a file, applied to label rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from deepmac_distill.calibration.bound import COVERAGE, lower_bound
from deepmac_distill.calibration.curve import RisingCurve
from deepmac_distill.calibration.cuts import CutTrial
from deepmac_distill.calibration.reliability import Reliability
from deepmac_distill.calibration.tried import Score
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.results import to_json
from deepmac_distill.files import write_json
from deepmac_distill.labels.cut import Cut
from deepmac_distill.regular import read_small

VERSION = 1  # of the file
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CutFit:
    """Quality of masks that are cut at one place."""

    cut: Cut
    curve: RisingCurve  # from the score to the expected IoU
    scale: float  # of the lower bound, see `bound`


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a calibration was learned from."""

    teacher: str  # its name in the hold-out
    identity: str  # of a teacher that is trained its recipe's, else the model's
    trained: bool  # once in each fold, else it drew all masks as it is
    made_with: dict[str, Any]  # what the provenance of its label files holds, by keys joined with dots
    data_sha256: str  # of the hidden masks, boxes and classes
    quick: bool  # trained for fewer steps than the recipe has
    folds: int
    classes: tuple[str, ...]
    masks: int


@dataclass(frozen=True, slots=True)
class ScoreTrial:
    """What a score is worth as the one that is calibrated."""

    score: Score
    squared_error: float  # of expected IoU, from other folds; classes weighted alike


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected IoU and a lower bound from a mask's score."""

    held_out: HeldOut
    score: Score
    scores: tuple[ScoreTrial, ...]
    cut: Cut  # that hidden classes choose
    cuts: tuple[CutTrial, ...]
    fits: tuple[CutFit, ...]  # of every cut that was tried
    class_spread: float  # standard deviation over classes of the mean of IoU less what was expected
    reliability: Reliability  # at `cut`, each mask by folds that do not hold its class
    coverage: float = COVERAGE
    version: int = VERSION

    def fit_at(self, cut: Cut) -> CutFit | None:
        """The fit of a cut; None where it was not tried."""
        return next((fit for fit in self.fits if same_cut(fit.cut, cut)), None)

    def quality(self, score: Floats, cut: Cut) -> tuple[Floats, Floats]:
        """(N,) expected IoU and its lower bound.

        Raises:
            DataError: no mask of this cut was tried.
        """
        fit = self.fit_at(cut)
        if fit is None:
            tried = ", ".join(str(one.cut) for one in self.fits)
            raise DataError(f"calibration: cut {cut}: got no trial of it, expected one of {tried}")
        quality = fit.curve(score)
        return quality, lower_bound(quality, fit.scale)


def same_cut(a: Cut, b: Cut) -> bool:
    """Whether two cuts are the same, numbers as float32 has them.

    >>> same_cut(0.3, float(np.float32(0.3))), same_cut("expected-iou", 0.5)
    (True, False)
    """
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return bool(np.float32(a) == np.float32(b))


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write it as JSON, whole or not at all."""
    write_json(path, to_json(calibration))


def read_calibration(path: Path) -> Calibration:
    """A calibration that was written.

    Raises:
        DataError: it cannot be read, or is of another version.
    """
    try:
        found: Any = msgspec.json.decode(read_small(path))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from None
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION:
        raise DataError(
            f"{path}: calibration version: got {version!r}, expected {VERSION}; calibrate again (deepmac "
            "calibrate)"
        )
    try:
        calibration = msgspec.convert(found, Calibration)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from None
    for fit in calibration.fits:
        _require_sound(path, fit)
    return calibration


def _require_sound(path: Path, fit: CutFit) -> None:
    x, y = np.array(fit.curve.x), np.array(fit.curve.y)
    sound = len(x) == len(y) > 0 and bool((np.diff(x) >= 0).all() and (np.diff(y) >= 0).all())
    if not (sound and y[0] >= 0 and y[-1] <= 1 and np.isfinite([*x, fit.scale]).all()):
        raise DataError(f"{path}: cut {fit.cut}: got a curve that is none, expected one that rises in [0, 1]")


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{path}: cannot be read: {reason}; expected what deepmac calibrate writes")
