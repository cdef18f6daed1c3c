"""Masks for other tools, from a run, a label file or a COCO file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from deepmac_distill.config import load_pipeline
from deepmac_distill.data.images import orientation_of
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import ConfigError, RunError
from deepmac_distill.exports.formats import Format, format_of, require_holds
from deepmac_distill.exports.masks import MaskSet, WithoutMask, of_annotations, of_labels
from deepmac_distill.exports.polygons import Losses
from deepmac_distill.files import written_whole
from deepmac_distill.geometry.outlines import TOLERANCE_PX
from deepmac_distill.labels.cut import Cut
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.rules import Rules
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.data_files import annotation_file
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.outputs import require_new
from deepmac_distill.stages.quality import calibrated, quality_words, require_quality
from deepmac_distill.stages.student import chosen_labels
from deepmac_distill.storage.location import joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which masks are exported; None: as the run has it, else every mask as it was labeled."""

    without_mask: str = "drop"  # what becomes of a box without a mask: drop | keep | ignore
    min_mask_score: float | None = None
    min_mask_bbox_iou: float | None = None
    min_expected_iou: float | None = None
    min_quality: float | None = None
    calibration: Path | None = None
    cut: Cut | None = None

    def rules(self, run: Rules) -> Rules:
        """The rules of a run with what was chosen instead.

        Raises:
            ConfigError: a threshold outside [0, 1].
        """
        names = ("min_mask_score", "min_mask_bbox_iou", "min_expected_iou", "min_quality")
        chosen = {name: value for name in names if (value := getattr(self, name)) is not None}
        try:
            return replace(run, **chosen)
        except ValueError as error:
            raise ConfigError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    images: int
    masks: Mapping[str, int]  # written, by who drew them: human, teacher
    without_mask: Mapping[str, int]  # boxes: rejected, unlabeled
    became: WithoutMask  # of these
    crowds_left_out: int  # of people's crowds, where the format has none
    losses: Losses


def export(
    given: Path,
    name: str,
    out: Path | None = None,
    *,
    choice: Choice | None = None,
    images: Path | None = None,
    tolerance_px: float = TOLERANCE_PX,
    progress: Progress | None = None,
) -> Exported:
    """Write the masks of a run, a masks.parquet or a COCO file in another format.

    Args:
        given: a run directory (its labels, rules and training set), a masks.parquet, or a COCO file.
        name: of the format, see `exports.formats.FormatName`.
        out: file or folder to be, which must not be there; None: masks-NAME in the working directory.
        images: folder of the images, for formats that lead to them; None: the run's.
        tolerance_px: how far a point of an outline may be from the simplified one.

    Raises:
        ConfigError: an unknown format, or a choice that it cannot hold.
        RunError: `out` is there, or nothing is at `given`.
        DataError: labels or annotations cannot be read, or do not fit the format.
    """
    chosen, choice = format_of(name), choice or Choice()
    without = require_holds(chosen, choice.without_mask)
    if not 0 <= tolerance_px <= MAX_TOLERANCE_PX:
        raise ConfigError(f"--tolerance {tolerance_px}: expected 0 to {MAX_TOLERANCE_PX:g} pixels")
    path = out or Path(f"masks-{name}{chosen.suffix}")
    require_new(path)
    progress = progress or Silent()
    masks = _masks_of(given, without, choice, progress)
    if images is not None:
        if not images.is_dir():
            raise ConfigError(f"--images {images}: no such folder; expected that of the images")
        masks = replace(masks, folder=images)
    with _whole(path, chosen) as aside:
        losses = chosen.write(masks, aside, tolerance_px)
    if chosen.turns and not masks.upright:
        _note_turned(masks, name, progress)
    return _exported(path, masks, without, chosen, Losses.of(losses))


MAX_TOLERANCE_PX = 100.0


def _masks_of(given: Path, without: WithoutMask, choice: Choice, progress: Progress) -> MaskSet:
    if not given.exists():
        raise RunError(f"{given}: nothing there; expected a run directory, a masks.parquet or a COCO file")
    if given.is_dir():
        return _masks_of_run(RunDir(given), without, choice, progress)
    if given.suffix == ".parquet":
        labels = _as_chosen(
            Labels.open(given), choice, Rules(), choice.calibration or "", progress, bool(choice.calibration)
        )
        masks = of_labels(labels, choice.rules(Rules()), without)
        progress.note(f"{given}: has no images without boxes, and human masks as pixels; a run has all")
        return masks
    if choice != Choice(without_mask=choice.without_mask):
        raise ConfigError(
            f"{given}: its masks are decided; expected a run or a masks.parquet for other rules"
        )
    return of_annotations(Dataset.open(given, seen="all").for_evaluation(), without)


def _masks_of_run(run: RunDir, without: WithoutMask, choice: Choice, progress: Progress) -> MaskSet:
    path = run.output("pseudolabel", "masks.parquet")
    pipeline = load_pipeline(run.path / "config.json")
    kept = chosen_labels(path, pipeline.labels)
    data, scenes = pipeline.data, run.path / "scenes-train"
    by_scenes = data.source == "scenes"
    annotations = scenes / "instances.json" if by_scenes else annotation_file(data, data.train_annotations)
    folder = scenes / "images" if by_scenes else joined(data.root, data.train_images)
    view = Job(pipeline=pipeline, source=None, run=run, progress=progress).read(annotations)
    named = choice.calibration or pipeline.labels.calibration
    labels = _as_chosen(kept.labels, choice, kept.rules, named, progress, pipeline.labels.by_calibration)
    return replace(
        of_labels(labels, choice.rules(kept.rules), without, view),
        folder=folder,
        upright=data.exif == "apply",
    )


def _note_turned(masks: MaskSet, name: str, progress: Progress) -> None:
    """Note the images that readers of the format turn, while the masks are on their pixels as stored."""
    folder, names = masks.folder, masks.images["file_name"].to_pylist()
    if folder is None:
        return
    turned = [one for one in names if orientation_of(folder / one) != 1]
    if turned:
        progress.note(
            f"{len(turned)} images have an EXIF orientation, such as {turned[0]}: tools that read {name} "
            "turn them, but the masks are on the pixels as stored; take the tag out of the images, or set "
            'data.exif = "apply"'
        )


def _as_chosen(
    labels: Labels,
    choice: Choice,
    rules: Rules,
    calibration: Path | str,
    progress: Progress,
    by_calibration: bool,
) -> Labels:
    """Labels at the cut that was chosen, by hand or else by a calibration, with quality where it is known."""
    labels = labels if choice.cut is None else labels.with_cut(choice.cut)
    labels, why_not = calibrated(labels, calibration, by_calibration=by_calibration and choice.cut is None)
    if least := choice.rules(rules).min_quality:
        require_quality(labels, why_not, f"min_quality {least}")
    progress.note(quality_words(labels, why_not))
    return labels


@contextmanager
def _whole(path: Path, chosen: Format) -> Iterator[Path]:
    """A path beside `path` to write to: a file, or for formats without a suffix a new folder."""
    if chosen.suffix:
        with written_whole(path) as aside:
            yield aside
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exported(path: Path, masks: MaskSet, without: WithoutMask, chosen: Format, losses: Losses) -> Exported:
    rows = masks.rows
    of_people = pc.and_(rows["is_crowd"], pc.not_equal(rows["source"], "none"))
    left_out = 0 if chosen.has_crowds else int(pc.sum(of_people).as_py() or 0)
    written = {
        kind: int(pc.sum(pc.equal(rows["source"], kind)).as_py() or 0) for kind in ("human", "teacher")
    }
    return Exported(
        path=path,
        images=len(masks.images),
        masks=written | {"human": written["human"] - left_out},
        without_mask={kind: masks.counts[kind] for kind in ("rejected", "unlabeled")},
        became=without,
        crowds_left_out=left_out,
        losses=losses,
    )
