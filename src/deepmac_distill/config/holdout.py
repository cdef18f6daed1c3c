"""Keys of a pipeline file about the hold-out: teachers tried on classes whose masks are hidden from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deepmac_distill.config.refusal import require
from deepmac_distill.files import is_plain_name

MAX_FOLDS = 100
RECIPE = "recipe"  # the pipeline's own teacher
BEST = "best"  # in `labels.teacher`: the winner of the hold-out
DEFAULT_TEACHERS = (RECIPE, "starter", "grabcut")  # where none is named; the last one if it is installed


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutConfig:
    """How teachers are tried before they label: on seen classes, in the training file."""

    first: bool = False  # `deepmac run` does it before everything else
    folds: int = 2  # groups of the seen classes; the masks of one at a time are hidden
    # recipe (the pipeline's own teacher), starter, a segmenter's name, a weights file; or another pipeline
    # file or run, whose teacher is trained. NAME=WHAT names one. Empty: recipe, starter, grabcut if installed
    teachers: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)  # NAME -> those of the segmenter's constructor
    quick: bool = False  # a quarter of the training steps
    min_expected_iou_unseen: float = (
        0.0  # gate of `run` on the mean IoU of hidden classes, a fraction; 0 = none
    )

    def __post_init__(self) -> None:
        require(2 <= self.folds <= MAX_FOLDS, "folds", self.folds, f"2 to {MAX_FOLDS}")
        gate = self.min_expected_iou_unseen
        require(0 <= gate < 1, "min_expected_iou_unseen", gate, "a fraction in [0, 1)")
        for name, value in self.arguments.items():
            require(isinstance(value, dict), f"arguments.{name}", value, "a table")
            require(name in self.names, f"arguments.{name}", value, "a name among teachers")
        for name in self.names:
            require(is_plain_name(name), "teachers", name, "names without folders: NAME=PATH")
            require(self.names.count(name) == 1, "teachers", name, "each name once: NAME=WHAT")
        if RECIPE in self.names:
            named = self.teachers[self.names.index(RECIPE)]
            own = "another name for another teacher than the pipeline's own: NAME=WHAT"
            require((named.partition("=")[2] or named) == RECIPE, "teachers", named, own)
        require(
            BEST not in self.names, "teachers", BEST, "another name: labels.teacher has it for the winner"
        )

    @property
    def asked(self) -> bool:
        """Whether `deepmac run` does it: it is asked for, or the gate needs it."""
        return self.first or self.min_expected_iou_unseen > 0

    @property
    def may_label(self) -> tuple[str, ...]:
        """The teachers that `labels.teacher` may name; the pipeline's own is always one of them."""
        return tuple(dict.fromkeys((RECIPE, *(self.names or DEFAULT_TEACHERS))))

    @property
    def names(self) -> tuple[str, ...]:
        """What the teachers are called."""
        return tuple(name_of(teacher) for teacher in self.teachers)


def name_of(teacher: str) -> str:
    """What a teacher is called: NAME of NAME=WHAT, else the last part of a path without its suffix.

    >>> name_of("recipe"), name_of("large=sam"), name_of("runs/a/weights.safetensors"), name_of("my.py:Sam")
    ('recipe', 'large', 'weights', 'Sam')
    """
    name, equals, _ = teacher.partition("=")
    if equals:
        return name
    last = teacher.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return last.removesuffix(".safetensors").removesuffix(".toml")
