"""A run with its stages as methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deepmac_distill.calibration.calibration import Calibration
from deepmac_distill.chain import Role
from deepmac_distill.config import load_pipeline, located
from deepmac_distill.evaluation.holdout_results import Holdout
from deepmac_distill.evaluation.results import Evaluation, Report
from deepmac_distill.files import read_text
from deepmac_distill.geometry.outlines import TOLERANCE_PX
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.calibrate import calibrate as fit_calibrations
from deepmac_distill.stages.evaluate import evaluate as evaluate_model
from deepmac_distill.stages.evaluate import read_evaluation
from deepmac_distill.stages.export import Choice, Exported
from deepmac_distill.stages.export import export as write_masks
from deepmac_distill.stages.holdout import holdout
from deepmac_distill.stages.import_masks import Imported
from deepmac_distill.stages.import_masks import import_masks as take_back
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.pseudolabel import pseudolabel as label_boxes
from deepmac_distill.stages.review import ReviewList
from deepmac_distill.stages.review import review_list as write_review_list
from deepmac_distill.stages.run import run as run_chain
from deepmac_distill.stages.student import student as train_student
from deepmac_distill.stages.train import teach as train_teacher


class Run:
    """A run directory with the stages as methods; each does its work, or finds it done.

    Args:
        out: the run directory, new or begun.
        recipe: a pipeline file or a recipe's name, such as "coco_sample"; None: what the run keeps.
        keys: values of any keys of the pipeline, such as {"data.train_annotations": "train.json"}.
        progress: what is reported to; nothing by default.
        force: redo what is done.
        allow_code: import the code that the pipeline's teacher names, if it is a third party's.

    Raises:
        ConfigError: no pipeline and no data are named, or a key or a value is refused.
        RunError: the directory holds something else than a run.
    """

    def __init__(
        self,
        out: str | Path,
        recipe: str | Path | None = None,
        keys: Mapping[str, object] | None = None,
        *,
        progress: Progress | None = None,
        force: bool = False,
        allow_code: bool = False,
    ) -> None:
        file = Path(out) / "config.json" if recipe is None else located(Path(recipe))
        self.job = Job(
            pipeline=load_pipeline(file, values=dict(keys or {})),
            source=read_text(file) if file.suffix == ".toml" else None,
            run=RunDir(Path(out)),
            progress=progress or Silent(),
            force=force,
            allow_code=allow_code,
        )

    def run(self) -> Report | None:
        """The whole chain; the report, or None where there is no validation set."""
        return run_chain(self.job)

    def holdout(self) -> Holdout:
        """Teachers tried on seen classes whose masks are hidden from them, as `[holdout]` has it."""
        return holdout(self.job)

    def calibrate(self) -> tuple[Calibration, ...]:
        """What masks are worth, of each teacher that the hold-out tried on enough masks."""
        return fit_calibrations(self.job.run, self.job.progress)

    def review_list(self, out: str | Path, budget: int = 200) -> ReviewList:
        """Write the masks that a person should draw next, those with the lowest `quality_low`: an estimate.

        Args:
            out: COCO file to be, which must not be there.
            budget: masks that a person has time for.
        """
        return write_review_list(self.job.run.path, Path(out), budget)

    def teach(self) -> Path | None:
        """Train the teacher; its weights, or None for a teacher that needs no training."""
        return train_teacher(self.job)

    def pseudolabel(self, teacher: str | Path | None = None) -> Labels:
        """A mask for every box that has none.

        Args:
            teacher: weights; None: the run's teacher.
        """
        label_boxes(self.job, None if teacher is None else Path(teacher))
        return Labels.open(self.job.run.path / "pseudolabel" / "masks.parquet")

    def student(self) -> Path:
        """Train the student on human masks and the teacher's; its weights."""
        return train_student(self.job)

    def evaluate(self, model: Role | Path = "teacher", *, hidden: bool = False) -> Evaluation:
        """Evaluate a model of the run, or any weights file, on the validation set.

        Args:
            hidden: on the classes that `data.hide` hides in the training file instead, in given boxes alone.
        """
        return read_evaluation(evaluate_model(self.job, model, hidden=hidden))

    def export(
        self, format: str, out: str | Path, *, without_mask: str = "drop", tolerance_px: float = TOLERANCE_PX
    ) -> Exported:
        """Write the labels for other tools: masks of people, and the teacher's by the run's rules.

        Args:
            format: coco-polygons, coco-rle, yolo-seg, voc, labelme, cvat or label-studio.
            out: file or folder to be, which must not be there.
            without_mask: what becomes of a box without a mask: drop it, keep it, or ignore its region.
            tolerance_px: by how much a polygon may differ from its mask's outline.
        """
        choice = Choice(without_mask=without_mask)
        job = self.job
        return write_masks(
            job.run.path, format, Path(out), choice=choice, tolerance_px=tolerance_px, progress=job.progress
        )

    def import_masks(
        self, file: str | Path, out: str | Path, *, reviewed: bool = False, drop_removed: bool = False
    ) -> Imported:
        """Write what the student learned from with masks that people corrected in another tool.

        Args:
            file: COCO file of that tool.
            out: the annotation file to be, which must not be there.
            reviewed: people looked at all of it, so that unchanged masks become human too.
            drop_removed: leave out objects that are no longer there.
        """
        run = self.job.run.path
        return take_back(Path(file), run, Path(out), reviewed=reviewed, drop_removed=drop_removed)
