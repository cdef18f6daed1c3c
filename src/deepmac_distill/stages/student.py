"""Stage `student`: the training that learns from human masks and the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepmac_distill.chain import STAGES
from deepmac_distill.config.labels import LabelsConfig
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.lesson import ChosenLabels
from deepmac_distill.labels.quality import QUALITY
from deepmac_distill.labels.rules import Rules
from deepmac_distill.stages.job import Job, training_split
from deepmac_distill.stages.preflight import require_ready
from deepmac_distill.stages.quality import calibrated, quality_words, require_quality
from deepmac_distill.stages.train import train_stage


def student(job: Job, labels: Path | None = None) -> Path:
    """Train the student on human masks of seen classes and the teacher's of the rest; returns its weights.

    Human masks come from the data set, the teacher's from its labels by the rules in `[labels]`.

    Args:
        labels: what another run wrote, masks.parquet or a COCO file that holds all masks; None: this run's.

    Raises:
        DataError: the labels have other class names, images or boxes than the run's training annotations.
    """
    if labels is None:
        job.run.output("pseudolabel", "masks.parquet")  # nothing else matters without them
    require_ready(job, [STAGES["student"]])
    whole = labels is not None and labels.suffix != ".parquet"  # it holds all that is learned from
    data = training_split(job, needed=not whole)
    if labels is not None and whole:
        annotations = job.read_and_note(labels)
        if data.annotations.is_file():
            training = job.read(data.annotations)
            _require_same_data(annotations, training)
            annotations = annotations.with_ids_of(training.classes)
        return train_stage(job, "student", annotations, data.images)
    chosen = chosen_labels(labels or job.run.output("pseudolabel", "masks.parquet"), job.pipeline.labels)
    return train_stage(job, "student", job.read_and_note(data.annotations), data.images, labels=chosen)


def chosen_labels(
    masks: Path, choice: LabelsConfig, note: Callable[[str], None] | None = None
) -> ChosenLabels:
    """A label file by the rules and options that a pipeline file states, with quality where it is known.

    Args:
        note: reports the quality of the masks; None: nobody asks.

    Raises:
        DataError: the file cannot be read, is no label file, or is of another schema version; or its
            calibration is of another teacher or cut.
        RunError: quality is asked for and not known.
    """
    labels, why_not = calibrated(
        Labels.open(masks).with_cut(choice.cut_alone),
        choice.calibration,
        by_calibration=choice.by_calibration,
    )
    for name, asked in (("min_quality", choice.min_quality), ("mask_weight", choice.mask_weight == QUALITY)):
        if asked:
            require_quality(labels, why_not, f"labels.{name} = {getattr(choice, name)!r}")
    if note is not None:
        note(quality_words(labels, why_not))
    return ChosenLabels(
        labels=labels,
        rules=Rules(
            min_mask_score=choice.min_mask_score,
            min_expected_iou=choice.min_expected_iou,
            min_mask_bbox_iou=choice.min_mask_bbox_iou,
            min_quality=choice.min_quality,
            on_rejected=choice.on_rejected,
        ),
        mask_weight=choice.mask_weight,
        targets=choice.targets,
    )


def _require_same_data(labels: Annotations, training: Annotations) -> None:
    """Refuse labels of other classes or images than the run is about, by the first that differs."""
    for kind, got, expected in (
        ("class", labels.classes.names, training.classes.names),
        ("image", labels.images["file_name"].to_pylist(), training.images["file_name"].to_pylist()),
    ):
        if differing := sorted(set(got) ^ set(expected)):
            where = labels if differing[0] in set(got) else training
            raise DataError(
                f"{labels.path}: {len(differing)} {kind} names differ from those of {training.path}; only "
                f"{where.path} has {differing[0]}; expected labels of this run's training set "
                "(data.train_annotations)"
            )
