"""What a stage is given: the pipeline, the run, where to report, and where the data are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import torch

from deepmac_distill import config, devices
from deepmac_distill.comparing import PLAINLY, Comparing
from deepmac_distill.config import Pipeline, RoleConfig
from deepmac_distill.data.image_store import ImageFolder, ImageStore
from deepmac_distill.data.synthetic import write_scenes
from deepmac_distill.dataset.choice import fits, is_by_masks
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations, TrainingView, Truth
from deepmac_distill.errors import ConfigError
from deepmac_distill.labels.cut import Cut
from deepmac_distill.progress import Progress
from deepmac_distill.ranks import ONE, Ranks
from deepmac_distill.rundir import RunDir
from deepmac_distill.shards import Shard
from deepmac_distill.shared_stage import run_shard
from deepmac_distill.stages.annotation_facts import facts_of
from deepmac_distill.stages.candidate import TeacherChoice
from deepmac_distill.stages.computed_with import computed_with
from deepmac_distill.stages.data_files import annotation_file, annotation_file_if_any, image_folder
from deepmac_distill.stages.in_step import in_step
from deepmac_distill.stages.lower_needs import lower_needs_named
from deepmac_distill.torchrun import ALONE, Place


@dataclass(frozen=True, slots=True)
class Job:
    """What to do, where, and where to report."""

    pipeline: Pipeline
    source: str | None  # the pipeline file's text, kept verbatim in the run
    run: RunDir
    progress: Progress
    force: bool = False
    allow_code: bool = False  # whether the pipeline file may name Python code that is not installed
    look: Mapping[str, object] = field(default_factory=dict)  # how a model looks other than its card has it
    asked_cut: Cut | None = None  # where masks are cut in evaluation, other than the pipeline has it
    shard: Shard | None = None  # the part of a stage that this process does, where the stage has units
    joins: bool = False  # whether all units are expected to be there
    place: Place = ALONE  # of this process among those that torchrun has started; each has a GPU of its own
    ranks: Ranks = ONE  # the processes that train together, of which this is one
    plan: tuple[str, ...] = ()  # stages of the whole run that this is part of, in their order
    choice: TeacherChoice | None = None  # who labels, where it is not the pipeline's own teacher alone
    kept: Pipeline | None = None  # what the run keeps, where the pipeline's teacher is the chosen one
    _facts: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)  # of files read, by hash
    _noted: set[str] = field(default_factory=set, repr=False)
    _opened: dict[tuple[Path, Any], Dataset] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        return devices.pick_device(self.pipeline.device, self.place)

    def autocast_of(self, role: str) -> bool:
        """Whether inference of a teacher or a student runs in bfloat16: as its training has it."""
        recipe: RoleConfig = getattr(self.pipeline, role)
        return devices.autocast_allowed(self.device, recipe.train.autocast)

    @property
    def trains_teacher(self) -> bool:
        """Whether a teacher is trained, or what labels is ready."""
        return bool(self.choice.trained) if self.choice else not self.pipeline.teacher.segmenter

    @property
    def cut(self) -> Cut:
        """Where masks end."""
        return self.pipeline.labels.cut_alone if self.asked_cut is None else self.asked_cut

    def note_once(self, text: str) -> None:
        """Report a note that several stages of this command have reason for."""
        if text not in self._noted:
            self._noted.add(text)
            self.progress.note(text)

    def keep_facts(self, sha256: str, facts: dict[str, Any]) -> None:
        """Keep what an input that is a hash is of, for a message about a change of it."""
        self._facts[sha256] = facts

    def open(self, path: Path) -> Dataset:
        """An annotation file, opened once for all stages of this command.

        Where masks decide which classes are seen, it is those of the training file that do; and it is the
        training file that has the classes which `data.seen` names.
        """
        data, training = self.pipeline.data, self.training_file()
        stat = path.stat() if path.exists() else None
        key = (path, stat and (stat.st_mtime_ns, stat.st_size))
        if key not in self._opened:
            sizes = self._images_of(path)
            found = Dataset.open(path, seen="all", strict=data.strict, sizes=sizes)
            names = found.classes.names
            of_training = is_by_masks(data.seen, names) or not fits(data.seen, names)
            if training not in (None, path) and of_training:
                found = found.seeing(self.open(training).classes.seen_names)
            else:
                found = Dataset.open(
                    path, seen=data.seen, strict=data.strict, min_masks=data.min_masks, sizes=sizes
                )
            for note in found.notes:
                self.progress.note(note)
            self._opened[key] = found
        return self._opened[key]

    def hidden(self, path: Path) -> tuple[str, ...]:
        """Seen classes of a file that `data.hide` makes unseen; folds are those of the training file."""
        if not self.pipeline.data.hide:
            return ()
        reference = self.open(self.training_file() or path)
        names = reference.hidden_names(self.pipeline.data.hide)
        reference.classes.hiding(names, str(reference.path))  # refuses names that it does not have
        return tuple(name for name in names if name in self.open(path).classes.seen_names)

    @overload
    def read(self, path: Path, hide_unseen: Literal[True] = True) -> TrainingView: ...
    @overload
    def read(self, path: Path, hide_unseen: Literal[False]) -> Truth: ...

    def read(self, path: Path, hide_unseen: bool = True) -> Annotations:
        """What training may see of an annotation file; with `hide_unseen` False what evaluation may."""
        dataset, hide = self.open(path), self.hidden(path)
        annotations = dataset.for_training(hide) if hide_unseen else dataset.for_evaluation(hide)
        self._facts[annotations.fingerprint] = facts_of(annotations)
        return annotations

    def read_hidden(self, path: Path) -> Truth:
        """What choices may be made by: of an annotation file, the masks of the classes that are hidden.

        Raises:
            ConfigError: none is.
        """
        hide = self.hidden(path)
        if not hide:
            raise ConfigError(
                f"{path}: hidden classes: got none, expected data.hide to name some (--hide fold:0/2)"
            )
        truth = self.open(path).of_hidden(hide)
        self._facts[truth.fingerprint] = facts_of(truth)
        return truth

    def _images_of(self, path: Path) -> ImageStore:
        """The images of an annotation file; they provide sizes that the file lacks."""
        data = self.pipeline.data
        of_validation = data.val_annotations and path == annotation_file(data, data.val_annotations)
        named = data.val_images if of_validation and data.val_images else data.train_images
        return image_folder(data, named)

    def training_file(self) -> Path | None:
        """The training annotations, where they are there already."""
        data = self.pipeline.data
        if data.source == "scenes":
            path = self.run.path / "scenes-train" / "instances.json"
            return path if path.is_file() else None
        return annotation_file_if_any(data, data.train_annotations)

    def read_and_note(self, path: Path) -> Annotations:
        """`read`, with a note of what the file holds and what will not be used."""
        annotations = self.read(path)
        counted = ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in annotations.counts.items() if count
        )
        self.progress.note(f"{path}: {counted}; seen: {', '.join(annotations.classes.seen_names)}")
        return annotations

    def keeping_look(self) -> Job:
        """The same with the look that is asked for as the teacher's own, so that the run keeps it.

        Raises:
            ConfigError: it does not fit what the teacher trains on.
        """
        if not self.look:
            return self
        teacher = config.looking(self.pipeline.teacher, self.look)
        return dataclasses.replace(
            self, pipeline=dataclasses.replace(self.pipeline, teacher=teacher), look={}
        )

    def begin(self) -> None:
        """Make the run's folder, and keep the configuration there."""
        if self.ranks.leads:
            self.run.begin()
            self.run.record_config(dataclasses.asdict(self.kept or self.pipeline), self.source)

    def do(
        self,
        stage: str,
        inputs: dict[str, Any],
        work: Callable[[Path], None],
        *,
        derived: bool = False,
        comparing: Comparing = PLAINLY,
        together: bool = False,
    ) -> Path:
        """Run one stage in its folder; the run keeps the configuration of the stage begun last.

        Args:
            together: all processes do the work; else the first one does, and the others wait for it.
        """

        def recorded(folder: Path) -> None:
            devices.use_threads(self.pipeline.threads)
            self.begin()
            with lower_needs_named(stage):
                work(folder)

        if stage in self.plan:
            self.progress.note(f"stage {self.plan.index(stage) + 1} of {len(self.plan)}: {stage}")
        about = {name: self._facts[value] for name, value in inputs.items() if str(value) in self._facts}
        if self.shard is not None:
            given = (self.run, stage, self.shard, inputs, recorded, self.progress, about, comparing)
            return run_shard(*given, computed_with(self.pipeline, self.device))
        return in_step(
            self.ranks,
            recorded,
            lambda announced: self.run.run_stage(
                *(stage, inputs, announced, self.progress, self.force, derived),
                about=about,
                comparing=comparing,
            ),
            together=together,
        )


@dataclass(frozen=True, slots=True)
class Split:
    """An annotation file and its images."""

    annotations: Path
    images: ImageStore


def training_split(job: Job, *, needed: bool = True) -> Split:
    """Where the training data are; generated scenes are made first.

    Raises:
        ConfigError: its annotations are `needed` and not named.
    """
    data = job.pipeline.data
    if data.source == "scenes":
        return _scenes(job, "train", data.scenes.train_images)
    if needed and not data.train_annotations:
        raise ConfigError("data.train_annotations: got nothing, expected a COCO file (--annotations)")
    return Split(annotation_file(data, data.train_annotations), image_folder(data, data.train_images))


def validation_split(job: Job) -> Split | None:
    """Where the validation data are, if anywhere."""
    data = job.pipeline.data
    if data.source == "scenes":
        return _scenes(job, "val", data.scenes.val_images)
    if not data.val_annotations:
        return None
    images = image_folder(data, data.val_images or data.train_images)
    return Split(annotation_file(data, data.val_annotations), images)


def validation_named(job: Job) -> bool:
    """Whether there is a validation set; nothing is read or made."""
    return job.pipeline.data.source == "scenes" or bool(job.pipeline.data.val_annotations)


def _scenes(job: Job, split: Literal["train", "val"], images: int) -> Split:
    """Generated scenes of one split; the two never share a seed."""
    size_px, chosen = job.pipeline.data.scenes.size_px, job.pipeline.data.scenes.seed
    scenes_seed = job.pipeline.seed if chosen < 0 else chosen
    seed = 2 * scenes_seed + (split == "val")

    def work(folder: Path) -> None:
        job.progress.note(f"generating {images} scenes to {folder}")
        write_scenes(folder, images=images, seed=seed, size_px=size_px)

    inputs = {
        f"data.scenes.{split}_images": images,
        "data.scenes.size_px": size_px,
        "seed": scenes_seed,
    }
    if job.shard is not None and job.run.inputs_of(f"scenes-{split}") == inputs:  # others work here too
        folder = job.run.path / f"scenes-{split}"
        return Split(folder / "instances.json", ImageFolder(folder / "images"))
    # Forced, only other inputs redo them: every stage asks for the scenes.
    folder = in_step(
        job.ranks,
        work,
        lambda announced: job.run.run_stage(
            f"scenes-{split}", inputs, announced, job.progress, derived=job.force
        ),
    )
    return Split(folder / "instances.json", ImageFolder(folder / "images"))
