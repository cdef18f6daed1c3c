"""What is known of the quality of labels: the calibration that fits them, or why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.calibration.applied import Calibrated, CalibratedTeachers, other_teacher
from deepmac_distill.calibration.calibration import Calibration, same_cut
from deepmac_distill.calibration.expected import RECOMMENDED, Expected, expected_of
from deepmac_distill.calibration.tables import page_of
from deepmac_distill.config.labels import LabelsConfig
from deepmac_distill.errors import DataError, RunError
from deepmac_distill.files import is_plain_name
from deepmac_distill.labels.cut import DEFAULT_CUT, Cut
from deepmac_distill.labels.export import SEEN_MASK_CLASSES
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.quality import QUALITY, QUALITY_LOW
from deepmac_distill.labels.table import TEACHER
from deepmac_distill.models.load import Source
from deepmac_distill.rundir import RunDir
from deepmac_distill.storage.fetching import fetched

STAGE, SUFFIX = "calibration", ".calibration.json"  # of a file for each teacher
FIRST = "deepmac holdout, then deepmac calibrate, make one"


@dataclass(frozen=True, slots=True)
class KnownQuality:
    """Masks of a label file whose quality is known."""

    rows: NDArray[np.int64]  # (N,) of `Labels.table`
    quality: NDArray[np.float64]
    low: NDArray[np.float64]
    classes: NDArray[np.int64]  # of `names`
    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Labels) -> KnownQuality:
        """Those of a teacher."""
        table = labels.table
        names = table["category_name"].combine_chunks().dictionary_encode()
        rows = np.flatnonzero(np.asarray(pc.is_valid(table[QUALITY])))
        quality, low = (np.asarray(table[name])[rows].astype(np.float64) for name in (QUALITY, QUALITY_LOW))
        classes = names.indices.to_numpy().astype(np.int64)[rows]
        return cls(rows, quality, low, classes, tuple(names.dictionary.to_pylist()))


def calibrated(labels: Labels, named: str | Path = "", *, by_calibration: bool = False) -> tuple[Labels, str]:
    """Labels with quality, and why they or the masks of one of their teachers have none, or nothing.

    Args:
        named: a calibration file; empty: those of the run that holds the labels, if it has some for their
            teachers and their cut.
        by_calibration: each calibration chooses where the masks of its teacher end.

    Raises:
        DataError: the file that is named cannot be read or is of another teacher, or the run's is broken.
        RunError: the run's was changed since it was made.
    """
    if named:
        only = Calibrated.read(fetched(named))
        differ = {name: other_teacher(only.calibration, facts) for name, facts in labels.teachers.items()}
        found = {name: only for name, reason in differ.items() if not reason}
        if not found:
            raise DataError(
                f"{named}: is of another teacher than {labels.path}: {next(iter(differ.values()))}"
            )
        reasons = {name: f"{named}: {reason}" for name, reason in differ.items() if reason}
    else:
        found, reasons = _by_the_run(labels)
    if not found:
        return labels.with_quality(None), f"no calibration of their teacher ({next(iter(reasons.values()))})"
    missing = "; ".join(f"{teacher}: no calibration ({reason})" for teacher, reason in reasons.items())
    if by_calibration:
        chosen = {name: one.calibration.cut for name, one in found.items()}
        own = {name: cut for name, cut in chosen.items() if not same_cut(cut, labels.cut_of(name))}
        labels = labels.with_own_cuts(own)
    return labels.with_quality(CalibratedTeachers(found)), missing


def calibrations_of(run: RunDir, named: str = "") -> dict[str, Calibrated]:
    """The calibrations that give the masks of a run their quality, by teacher; none of a run without labels.

    Raises:
        DataError, RunError: as `calibrated`.
    """
    path = run.path / "pseudolabel" / "masks.parquet"
    if not path.is_file():
        return {}
    labels, _ = calibrated(Labels.open(path), named)
    found = labels.quality.by_teacher if isinstance(labels.quality, CalibratedTeachers) else {}
    return {str(name): one for name, one in found.items()}


def quality_pages(known: Mapping[str, Calibrated]) -> dict[str, str]:
    """Files of a report that have how right quality is, one for each teacher, and their text.

    Raises:
        DataError: a label file calls a teacher by what is no name of a file.
    """
    for name in known:
        if not is_plain_name(name):
            raise DataError(f"labels: teacher {name[:60]!r}: expected a name without folders")
    return {f"quality-{name}.md": page_of(one.calibration) for name, one in known.items()}


def facts_of(source: Source) -> dict[str, Any]:
    """What a label file records of a teacher, as a reader gets it: lists for tuples."""
    seen = source.seen_mask_classes
    facts = {
        **source.inputs("teacher"),
        "teacher_card": source.provenance(),
        "look": asdict(source.look),
        SEEN_MASK_CLASSES: None if seen is None else list(seen),
    }
    return dict(json.loads(json.dumps(facts)))


def chosen_cut(run: Path, labels: LabelsConfig, source: Callable[[], Source]) -> Cut:
    """Where the masks of a run's teacher end, in evaluations as in its labels.

    Args:
        source: the teacher, whose weights are read where there is a calibration to compare it with.

    Raises:
        DataError, RunError: a calibration cannot be read.
    """
    if labels.by_calibration:
        named = labels.calibration
        known = [Calibrated.read(fetched(named))] if named else list(_files_of(run).values())
        facts = facts_of(source()) if known else {}
        for one in known:
            if not other_teacher(one.calibration, facts):
                return one.calibration.cut
    return labels.cut_alone


def _files_of(run: Path) -> dict[str, Calibrated]:
    """The calibrations of a run, or of a folder that its labels were copied to, by the name of the file."""
    paths = sorted((run / STAGE).glob(f"*{SUFFIX}"))
    if (run / "environment.json").is_file():  # it is a run, which holds what its files were
        paths = [RunDir(run).output(STAGE, path.name) for path in paths]
    return {path.name: Calibrated.read(path) for path in paths}


def _by_the_run(labels: Labels) -> tuple[dict[str | None, Calibrated], dict[str | None, str]]:
    """The calibration of each teacher of a run's labels, and why another has none."""
    own = _files_of(labels.path.resolve().parent.parent)
    found: dict[str | None, Calibrated] = {}
    reasons: dict[str | None, str] = {}
    for teacher, facts in labels.teachers.items():
        differ = {
            name: other_teacher(one.calibration, facts) or untried(one.calibration, labels.cut)
            for name, one in own.items()
        }
        fitting = [name for name, reason in differ.items() if not reason]
        if fitting:
            found[teacher] = own[fitting[0]]
        else:
            reasons[teacher] = "; ".join(f"{name}: {reason}" for name, reason in differ.items()) or FIRST
    return found, reasons


def untried(calibration: Calibration, cut: Cut | None) -> str:
    """Why nothing is known of masks at a cut; empty where something is."""
    asked = DEFAULT_CUT if cut is None else cut
    return "" if calibration.fit_at(asked) else f"cut {asked}: was not tried"


def require_quality(labels: Labels, why_not: str, asked: str) -> None:
    """Refuse what cannot be done without quality.

    Raises:
        RunError: with the reason why there is none.
    """
    if labels.quality is None:
        raise RunError(f"{labels.path}: {asked}: expected a quality of each mask, got {why_not}")


def require_quality_to_come(labels: LabelsConfig, run: Path, holds_out: bool) -> None:
    """Refuse, before any labels are made, a rule or weight by a quality that they will not have.

    Args:
        holds_out: whether the run tries its teachers first, which gives their masks a quality.

    Raises:
        DataError: the calibration that is named cannot be read.
        RunError: none is named, none is here, and none will be made.
    """
    if labels.calibration:
        Calibrated.read(fetched(labels.calibration))
        return
    for name, asked in (("min_quality", labels.min_quality), ("mask_weight", labels.mask_weight == QUALITY)):
        if asked and not (holds_out or (run / STAGE).exists()):
            raise RunError(
                f"{run}: labels.{name} = {getattr(labels, name)!r}: got no calibration, expected "
                "labels.calibration, or `deepmac holdout` and `deepmac calibrate` to be done before"
            )


def expected_quality(labels: Labels) -> Expected | None:
    """What the masks of a file are expected to be worth; None where nothing is known."""
    if not isinstance(labels.quality, CalibratedTeachers):
        return None
    known, by_teacher = KnownQuality.of(labels), labels.quality.by_teacher
    drawn = np.array(labels.table[TEACHER].to_pylist(), dtype=object)[known.rows]
    teachers = [(one.calibration, np.asarray(drawn == name)) for name, one in by_teacher.items()]
    return expected_of(known.quality, known.classes, teachers)


def quality_words(labels: Labels, why_not: str) -> str:
    """One line on the quality of a file's masks."""
    found = expected_quality(labels)
    if found is None:
        return f"quality: {why_not or 'no mask of a teacher'}"
    mean = found.class_mean_iou
    half = ((mean.high or 0) - (mean.low or 0)) / 2
    quick = ""
    if labels.quality and (names := labels.quality.by_quick_holdout):
        quick = f" ({', '.join(names)})" if len(labels.teachers) > 1 else ""
        quick = f", by a quick hold-out{quick}"
    return (
        f"quality: expected mean IoU {mean.value:.2f} ± {half:.2f}, on average over classes like those "
        f"tried{quick}; {found.below} of {found.masks} masks below {RECOMMENDED}"
        + (f"; not known: {why_not}" if why_not else "")
    )
