"""Options of an evaluation, for the command that does it and for the one that joins its shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.chain import TRAININGS, Trained
from deepmac_distill.cli.results import print_evaluation
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

    @property
    def values(self) -> dict[str, object]:
        """Keys of the pipeline that are asked for."""
        return {"evaluation.reference": True} if self.reference else {}

    def evaluated(self, role: str | None) -> Trained | Path:
        """The model: that of a stage, or a file.

        Raises:
            ConfigError: both are named, or there is no such thing.
        """
        model = self.model
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
        from deepmac_distill.stages.evaluate import evaluate, read_evaluation

        folder = evaluate(job, evaluated, hidden=self.hidden, boxes_of=boxes_of)
        if job.shard is not None:
            say(folder)
            return
        print_evaluation(read_evaluation(folder), self.per_class)
        say(f"figures: {folder}")
