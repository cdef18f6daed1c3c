"""A teacher that may label, and which of them do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepmac_distill import config
from deepmac_distill.config import TeacherConfig
from deepmac_distill.files import sha256_of_json
from deepmac_distill.models.load import Source


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


@dataclass(frozen=True, slots=True)
class TeacherChoice:
    """Who labels, where it is not the pipeline's own teacher alone."""

    main: Candidate  # of all classes but these
    by_class: Mapping[str, Candidate]

    @property
    def trained(self) -> Candidate | None:
        """The one that is trained in the run, if there is one."""
        return next((one for one in (self.main, *self.by_class.values()) if one.source is None), None)
