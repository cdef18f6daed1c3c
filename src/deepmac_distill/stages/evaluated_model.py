"""Which model is evaluated on what: the folder of an evaluation, and what it depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from deepmac_distill.chain import Trained
from deepmac_distill.comparing import Comparing
from deepmac_distill.files import sha256_of_json
from deepmac_distill.look import differences, folder_name
from deepmac_distill.models.load import Source, Weights
from deepmac_distill.stages.evaluated_set import EvaluatedSet, hidden_set, validation_set
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.sources import own_source_of

Kind = Literal["evaluate", "box-noise"]
UNNAMED: dict[str, Any] = {"evaluation.splits": {}}  # what earlier versions did, of what they did not name


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model as it is evaluated, and on what."""

    source: Source
    on: EvaluatedSet
    stage: str  # its folder
    inputs: dict[str, Any]
    comparing: Comparing
    upper_bound: bool  # it saw every mask of this data, on purpose

    @classmethod
    def of(
        cls, job: Job, kind: Kind, model: Trained | Path, *, hidden: bool, further: str = ""
    ) -> EvaluatedModel:
        """The model of a stage of the run, or of any weights file.

        Each folder holds one evaluation: a file's names its data, and what is asked otherwise than the model
        or the run has it stands at the end.

        Args:
            hidden: on the classes that `data.hide` hides in the training file.
            further: what else the folder is named by: strengths of box noise, or a detector.
        """
        own = own_source_of(job, model)
        source, on = own.looking(job.look), hidden_set(job) if hidden else validation_set(job)
        asked = [folder_name(differences(source.look, own.look))]
        if job.cut != job.pipeline.labels.cut_alone:
            asked.append(f"cut-{job.cut:g}" if isinstance(job.cut, float) else f"cut-{job.cut}")
        who = [model] if isinstance(model, str) else [_short(source), "on", on.truth.fingerprint[:8]]
        name = [kind, *who, further, "hidden" if on.hidden else "", *asked]
        comparing = source.comparing()
        # The run keeps how its own models look and are cut: a change of either acts.
        redone_for = () if isinstance(model, Path) else (*comparing.redone_for, "labels.cut")
        comparing = replace(comparing, redone_for=redone_for)
        return cls(
            source=source,
            on=on,
            stage="-".join(filter(None, name)),
            inputs={**source.inputs("weights"), **on.inputs(job.progress), "labels.cut": job.cut}
            | {"evaluation.bootstrap": job.pipeline.evaluation.bootstrap, "seed": job.pipeline.seed},
            comparing=comparing,
            upper_bound=model == "student-human",
        )

    def do(
        self,
        job: Job,
        inputs: dict[str, Any],
        unnamed: dict[str, Any],
        work: Callable[[Path], None],
        *,
        together: bool = False,
    ) -> Path:
        """Evaluate it, unless that is done; returns the folder.

        Args:
            inputs: more than every evaluation has.
            unnamed: what inputs were where earlier versions did not name them.
            together: as in `Job.do`.
        """

        def logged(folder: Path) -> None:
            if job.ranks.leads:
                self.on.log_reading(job, self.stage)
            work(folder)

        comparing = replace(self.comparing, unnamed={**self.comparing.unnamed, **UNNAMED, **unnamed})
        return job.do(self.stage, self.inputs | inputs, logged, comparing=comparing, together=together)


def _short(source: Source) -> str:
    """Of its identity, which is a hash only of weights of ours."""
    return (source.identity if isinstance(source, Weights) else sha256_of_json(source.identity))[:8]
