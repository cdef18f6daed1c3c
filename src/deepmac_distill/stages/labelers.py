"""Which teacher labels which boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.config.holdout import RECIPE, name_of
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.models.load import Source
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.quality import facts_of
from deepmac_distill.stages.sources import source_of, source_of_candidate


@dataclass(frozen=True)
class Labeler:
    """A teacher and the boxes that it draws in."""

    name: str  # in the rows
    source: Source
    wanted: NDArray[np.bool_]  # (N,) of the data set
    inputs: dict[str, Any]  # what its masks depend on, beside those of the first one's source

    def facts(self) -> dict[str, Any]:
        """What a label file records of it."""
        return facts_of(self.source)


def labelers_of(job: Job, annotations: Annotations, teacher: Path | None) -> list[Labeler]:
    """Who draws in the boxes without a human's mask.

    Args:
        teacher: weights that label in place of the run's own.
    """
    wanted = ~annotations.has_human_mask()
    if teacher is not None:
        return [Labeler(name_of(str(teacher)), source_of(job, teacher), wanted, {})]
    choice = job.choice
    if choice is None:
        return [Labeler(RECIPE, source_of(job, "teacher"), wanted, {})]
    main = choice.main.name
    others: dict[str, list[str]] = {}
    for class_name, chosen in choice.by_class.items():
        if chosen.name != main:
            others.setdefault(chosen.name, []).append(class_name)
    class_names = np.array(annotations.classes.names, dtype=object)[annotations.class_index()]
    found, left = [], wanted.copy()
    for name, names in others.items():
        own = wanted & np.isin(class_names, names)
        left &= ~own
        source = source_of_candidate(job, choice.by_class[names[0]])
        inputs: dict[str, Any] = {f"labels.teacher_by_class.{one}": name for one in names}
        inputs |= {f"{name}: {key}": value for key, value in source.inputs("teacher").items()}
        found.append(Labeler(name, source, own, inputs))
    named = {} if main == RECIPE else {"labels.teacher": main}
    found.insert(0, Labeler(main, source_of(job, "teacher"), left, named))
    for one in found:
        _note_what_it_saw(job, one, set(class_names[one.wanted].tolist()))
    return found


def _note_what_it_saw(job: Job, labeler: Labeler, names: set[str]) -> None:
    """A teacher may label what it saw elsewhere, but nothing here shows how well it would do without."""
    saw = labeler.source.seen_mask_classes
    own = sorted(names if saw is None else names & set(saw))
    if own:
        why = "nobody knows whose masks it saw" if saw is None else "it saw masks of them in other data"
        job.progress.note(
            f"{labeler.name}: labels {len(own)} classes such as {own[0]}: {why}, so what is hidden shows "
            "nothing about them"
        )
