"""Which teachers a hold-out tries: what `holdout.teachers` names, made ready."""

from __future__ import annotations

from importlib.util import find_spec

from deepmac_distill.config.holdout import DEFAULT_TEACHERS
from deepmac_distill.stages.candidate import Candidate
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.sources import candidate


def default_teachers() -> tuple[str, ...]:
    """What is tried where nothing is named: all that is there without being fetched."""
    return DEFAULT_TEACHERS if find_spec("cv2") else DEFAULT_TEACHERS[:-1]


def candidates(job: Job) -> tuple[Candidate, ...]:
    """The teachers of a hold-out, in the order of `holdout.teachers`.

    Raises:
        ConfigError, CheckpointError, ContractError: one of them cannot be used.
    """
    named = job.pipeline.holdout.teachers
    found = [candidate(job.pipeline, one, job.allow_code) for one in named or default_teachers()]
    if named:
        return tuple(found)
    own = found[0]  # a recipe may be one of the defaults
    return (own, *(one for one in found[1:] if one.identity != own.identity))
