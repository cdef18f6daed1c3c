"""Options of an evaluation, for the command that does it and for the one that joins its shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.chain import TRAININGS, Trained
from deepmac_distill.cli.results import print_box_noise, print_evaluation
from deepmac_distill.cli.terminal import say
from deepmac_distill.errors import ConfigError
from deepmac_distill.teachers.sam.naming import sam_named
from deepmac_distill.weights import starter

if TYPE_CHECKING:
    from deepmac_distill.stages.job import Job


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """What is evaluated, on what, and what is printed of it."""

    model: Annotated[
        Path | None,
        typer.Option("--model", help="Weights, a run (its teacher), starter, or sam:MODEL, to evaluate."),
    ] = None
    per_class: Annotated[bool, typer.Option("--per-class", help="Print a row for each class too.")] = False
    reference: Annotated[bool, typer.Option("--reference", help="Average precision by pycocotools.")] = False
    hidden: Annotated[
        bool,
        typer.Option(
            "--hidden",
            help="Evaluate on the classes that --hide hides in the training file, in given boxes: to choose "
            "by, without the validation set.",
        ),
    ] = False

    box_noise: Annotated[
        str,
        typer.Option(
            metavar="PERCENTS",
            help="Evaluate in loose boxes instead, such as 0,5,10,20: each side moves by up to that share "
            "of the box's width or height.",
        ),
    ] = ""

    @property
    def percents(self) -> tuple[float, ...]:
        """Strengths of noise; what numbers may be there, the stage knows.

        Raises:
            ConfigError: one is no number, or its table has no room for what else is asked for.
        """
        try:
            found = tuple(float(word) for word in self.box_noise.split(",")) if self.box_noise else ()
        except ValueError:
            got = repr(self.box_noise)
            raise ConfigError(f"--box-noise: got {got}, expected percents such as 0,5,10,20") from None
        if found and (self.per_class or self.reference):
            raise ConfigError(
                "--box-noise: its table has no classes and no AP; expected no --per-class, --reference"
            )
        return found

    @property
    def values(self) -> dict[str, object]:
        """Keys of the pipeline that are asked for."""
        return {"evaluation.reference": True} if self.reference else {}

    def evaluated(self, role: str | None) -> Trained | Path:
        """The model: that of a stage, or a file.

        Raises:
            ConfigError: both are named, or there is no such thing; or strengths of noise are none.
        """
        model, _ = self.model, self.percents  # which are refused before anything is read
        if role is not None and model is not None:
            raise ConfigError(f"evaluate: got {role} and --model {model}, expected one of them")
        if role == starter.NAME:
            model = Path(role)
        if model is not None:
            if not (sam_named(model) or starter.located(model).exists()):
                raise ConfigError(
                    f"{model}: no such file; expected weights, a run directory, starter, or sam: before a SAM"
                )
            return model
        for stage in TRAININGS:
            if stage == (role or "teacher"):
                return stage
        raise ConfigError(f"{role}: expected {', '.join(TRAININGS)} or starter; --model names a weights file")

    def evaluate(self, job: Job, evaluated: Trained | Path, boxes_of: Path | None = None) -> None:
        """Evaluate a model and print its figures; of a shard print where its parts are.

        Args:
            boxes_of: a detector's evaluation, whose boxes get this model's masks.
        """
        if percents := self.percents:
            from deepmac_distill.stages.box_noise import box_noise, read_box_noise

            folder = box_noise(job, evaluated, percents, hidden=self.hidden)
            if job.shard is not None:
                say(folder)
                return
            print_box_noise(read_box_noise(folder))
            say(f"figures: {folder}")
            return
        from deepmac_distill.stages.evaluate import evaluate, read_evaluation

        folder = evaluate(job, evaluated, hidden=self.hidden, boxes_of=boxes_of)
        if job.shard is not None:
            say(folder)
            return
        print_evaluation(read_evaluation(folder), self.per_class)
        say(f"figures: {folder}")
