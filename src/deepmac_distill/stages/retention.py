"""Stage `retention`: how much of what human masks would give the student the teacher's masks give it.

The same student, by one recipe and one seed, learns three times: `student-seen` from human masks of the seen
classes, `student` from the teacher's masks of the rest too, `student-human` from all human masks. The last
one is the upper bound, and the only training that reads hidden masks; nothing reads it but its evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from deepmac_distill.chain import ARMS, STAGES, Arm
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations, Truth, require_seen_masks
from deepmac_distill.errors import ConfigError, DataError, RunError
from deepmac_distill.evaluation.average_precision import CocoTruth
from deepmac_distill.evaluation.results import read_result, to_json
from deepmac_distill.evaluation.retention import retention_in_detections, retention_in_given_boxes
from deepmac_distill.evaluation.retention_results import Retention, RetentionDetected
from deepmac_distill.files import sha256_of_file, write_json
from deepmac_distill.progress import Progress
from deepmac_distill.stages.compare import MAX_AP_RESAMPLES, read_detections, read_ious
from deepmac_distill.stages.evaluate import evaluate, require_validation
from deepmac_distill.stages.job import Job, Split, training_split, validation_split
from deepmac_distill.stages.preflight import require_ready
from deepmac_distill.stages.student import student
from deepmac_distill.stages.train import (
    learns_no_unseen_mask,
    train_stage,
)
from deepmac_distill.stages.training_inputs import how_compared, training_inputs
from deepmac_distill.weights.card import read_card, require_classes

# Inputs that decide which masks a student sees.
_OF_LABELS = ("student annotations", "student labels", "labels.")


def retention(job: Job) -> Retention:
    """Train and evaluate what is not yet done of the three students: ``retention/summary.json``.

    Raises:
        ConfigError: there is no validation set, or every class is seen.
        DataError: training or validation has no human mask of an unseen class, or training has a teacher's.
        RunError: there is neither a student nor labels for one, or one was made with other inputs.
    """
    require_ready(job, [STAGES[name] for name in ARMS.values()])
    data, truth = _require_evaluable(job)
    training = training_split(job)
    annotations = job.read_and_note(training.annotations)
    everything = job.read(training.annotations, hide_unseen=False)
    without = _require_upper_bound(annotations, everything)
    _note_what_is_unfair(job, without)

    # The run's own student first: what is wrong with it is reported before hours of work.
    weights = _student_of_run(job, annotations, training.images)
    classes = annotations.classes
    require_classes(weights, read_card(weights), classes.names, classes.seen)
    train_stage(job, "student-seen", annotations, training.images)
    all_seen = (True,) * len(everything.classes)
    train_stage(job, "student-human", everything, training.images, seen=all_seen)
    folders = {arm: evaluate(job, stage) for arm, stage in ARMS.items()}

    def work(folder: Path) -> None:
        job.run.log_validation_reading("retention", data.annotations)
        figures = _figures(job, truth, folders, without)
        write_json(folder / "summary.json", to_json(figures))

    inputs: dict[str, Any] = {
        f"{ARMS[arm]} evaluation": sha256_of_file(at / "summary.json") for arm, at in folders.items()
    }
    inputs |= {"evaluation.bootstrap": job.pipeline.evaluation.bootstrap, "seed": job.pipeline.seed}
    return read_result(job.do("retention", inputs, work, derived=True) / "summary.json", Retention)


def _require_evaluable(job: Job) -> tuple[Split, Truth]:
    """The validation set, if unseen classes can be evaluated on it."""
    data = validation_split(job)
    if data is None or not require_validation(job):
        raise ConfigError(
            "data.val_annotations: got nothing, expected a COCO file to evaluate on (--val-annotations)"
        )
    truth = job.read(data.annotations, hide_unseen=False)
    _require_unseen_masks(truth, "to evaluate on")
    return data, truth


def _require_upper_bound(annotations: Annotations, everything: Annotations) -> list[str]:
    """Refuse training annotations that cannot serve all arms; returns the unseen classes without human masks.

    Args:
        annotations, everything: the same file without its hidden masks, and with them.
    """
    require_seen_masks(annotations)
    if drawn_by_teachers := everything.counts["teacher_masks"]:
        raise DataError(
            f"{everything.path}: {drawn_by_teachers} masks of a teacher; expected human masks alone, "
            "or the students could not be compared"
        )
    drawn = _require_unseen_masks(everything, "as an upper bound")
    return [name for name in everything.classes.unseen_names if name not in drawn]


def _note_what_is_unfair(job: Job, without: list[str]) -> None:
    if without:
        job.progress.note(
            f"no human masks in training of {len(without)} unseen classes ({_some(tuple(without))}): "
            "student-human is no upper bound for these"
        )
    if learns_no_unseen_mask(job.pipeline.student):
        job.progress.note(
            "student.model has a mask for each class: in student-seen those of unseen classes learn nothing, "
            "so retention flatters the teacher; class_agnostic = true is the fair comparison"
        )


def _student_of_run(job: Job, annotations: Annotations, images: ImageStore) -> Path:
    """The run's student, trained if it is not done; its recipe and its data must be those of the others."""
    labeled, done = job.run.inputs_of("pseudolabel"), job.run.inputs_of("student")
    if labeled is None and done is not None and not job.force:
        # Its labels came from elsewhere; all the rest can be compared.
        inputs = training_inputs(job, "student", annotations, images)
        inputs |= {name: value for name, value in done.items() if name.startswith(_OF_LABELS)}
        comparing = how_compared(job.pipeline.student, "student")
        return job.do("student", inputs, lambda _: None, comparing=comparing) / "weights.safetensors"
    if labeled is not None and labeled["data.train_annotations"] != annotations.fingerprint:
        raise RunError(
            f"{job.run.path}: pseudolabel was made from other annotations or seen classes than "
            f"{annotations.path} has now; expected the same (`deepmac pseudolabel`)"
        )
    return student(job)


def _figures(job: Job, truth: Truth, folders: dict[Arm, Path], without: list[str]) -> Retention:
    """Retention from three evaluations."""
    resamples, seed = job.pipeline.evaluation.bootstrap, job.pipeline.seed
    return Retention(
        arms=ARMS,
        unseen_without_human_masks=tuple(without),
        seeds=(seed,),
        **retained(truth, {arm: (folder,) for arm, folder in folders.items()}, resamples, seed, job.progress),
    )


def retained(
    truth: Truth,
    folders: Mapping[Arm, Sequence[Path]],
    resamples: int,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The figures of a `Retention`: `given_boxes` and `detected`.

    Args:
        folders: of each of `ARMS` its evaluations, one of each seed in one order.
    """
    detections = {arm: read_detections(of_seeds) for arm, of_seeds in folders.items()}
    segm = None
    if all(found is not None for found in detections.values()):
        segm = retention_in_detections(
            CocoTruth.of(truth, "segm"),
            {arm: found for arm, found in detections.items() if found is not None},
            resamples=min(resamples, MAX_AP_RESAMPLES),
            seed=seed,
            progress=progress,
        )
    ious = {arm: [read_ious(folder) for folder in of_seeds] for arm, of_seeds in folders.items()}
    return {
        "given_boxes": retention_in_given_boxes(ious, truth.classes, resamples, seed),
        "detected": RetentionDetected(segm),
    }


def _require_unseen_masks(annotations: Annotations, purpose: str) -> set[str]:
    """Names of the unseen classes of which a person drew a mask in a usable box; none is refused."""
    classes, labels = annotations.classes, annotations.class_index()
    if all(classes.seen):
        raise ConfigError(
            f"data.seen: got every class of {annotations.path}, expected an unseen one (--seen)"
        )
    usable = pc.equal(annotations.annotations["status"], "ok").to_numpy()
    unseen = ~np.array(classes.seen, dtype=bool)[labels]
    drawn = np.unique(labels[annotations.has_human_mask() & usable & unseen])
    if not drawn.size:
        raise DataError(
            f"{annotations.path}: no human masks of the unseen classes ({_some(classes.unseen_names)}); "
            f"expected at least one {purpose}"
        )
    return {classes.names[index] for index in drawn}


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
