"""Which teachers a hold-out tries: what `holdout.teachers` names, made ready."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deepmac_distill import config
from deepmac_distill.config import TeacherConfig, load_pipeline, located, recipe_names
from deepmac_distill.config.holdout import RECIPE, name_of
from deepmac_distill.errors import ConfigError
from deepmac_distill.files import sha256_of_json
from deepmac_distill.models.load import Segmenter, Source
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.sources import source_at
from deepmac_distill.teachers.sam.naming import sam_named
from deepmac_distill.weights import starter


@dataclass(frozen=True, slots=True)
class Candidate:
    """A teacher that may label: a recipe that is trained, or a source that draws as it is."""

    name: str
    recipe: TeacherConfig | None
    source: Source | None  # None: its recipe has to be trained

    @property
    def identity(self) -> str:
        """What changes with its masks, the data aside."""
        if self.source is not None:
            return self.source.identity
        assert self.recipe is not None
        return sha256_of_json(config.flatten(self.recipe))


def default_teachers() -> tuple[str, ...]:
    """What is tried where nothing is named: all that is there without being fetched."""
    return (RECIPE, starter.NAME, *(("grabcut",) if find_spec("cv2") else ()))


def candidates(job: Job) -> tuple[Candidate, ...]:
    """The teachers of a hold-out, in the order of `holdout.teachers`.

    Raises:
        ConfigError, CheckpointError, ContractError: one of them cannot be used.
    """
    named = job.pipeline.holdout.teachers
    found = [candidate(job, one) for one in named or default_teachers()]
    if named:
        return tuple(found)
    own = found[0]  # a recipe may be one of the defaults
    return (own, *(one for one in found[1:] if one.identity != own.identity))


def candidate(job: Job, named: str) -> Candidate:
    """One teacher that `holdout.teachers` names.

    Raises:
        ConfigError, CheckpointError, ContractError: it cannot be used.
    """
    name, what = name_of(named), named.partition("=")[2] or named
    if what == RECIPE:
        return _of_recipe(name, job.pipeline.teacher, job.allow_code)
    path = Path(what)
    if what == starter.NAME or sam_named(path):  # the weights: a recipe is called starter too
        return Candidate(name, None, source_at(path, allow_code=job.allow_code))
    kept = path / "config.json"
    if path.suffix == ".toml" or what in recipe_names() or kept.is_file():
        file = kept if kept.is_file() else located(path)
        return _of_recipe(name, load_pipeline(file).teacher, job.allow_code)
    if path.exists() or path.suffix == ".safetensors":
        return Candidate(name, None, source_at(path, allow_code=job.allow_code))
    arguments = job.pipeline.holdout.arguments.get(name, {})
    try:
        return Candidate(name, None, Segmenter.named(what, arguments, job.allow_code))
    except ConfigError as error:
        raise ConfigError(f"holdout.teachers: {name}: {error}") from None


def _of_recipe(name: str, recipe: TeacherConfig, allow_code: bool) -> Candidate:
    if not recipe.segmenter:
        return Candidate(name, recipe, None)
    return Candidate(
        name, recipe, Segmenter.named(recipe.segmenter, recipe.arguments, allow_code, recipe.look)
    )
