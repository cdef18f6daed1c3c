"""What the paper (arXiv:2104.00613) reports, read from ``paper.toml``: its figures stand there alone."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one model."""

    where: str  # in the paper, and what it is where it is not mask AP of unseen classes
    value: float


@dataclass(frozen=True, slots=True)
class Speed:
    """What a model takes on a V100."""

    model: str
    canvas_px: int | None  # None: the paper does not state it
    milliseconds: float  # an image, detection with masks


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of appendix B."""

    id: str
    where: str
    model: str
    kind: str
    figures: Mapping[str, float]  # all | seen | unseen -> figure


SPLITS = ("all", "seen", "unseen")
KINDS = (*SPLITS, "box", "AP50", "AP75", "APs", "APm", "APl")  # of a row's figures


def places() -> dict[str, dict[str, dict[str, float]]]:
    """Where figures stand -> model -> kind of figure (one of `KINDS`) -> figure in percent."""
    found: dict[str, dict[str, dict[str, float]]] = _document()["tables"]
    return found


def row(where: str, name: str) -> Mapping[str, float]:
    """The figures of a model in one place of the paper.

    >>> row("table 13, a student", "resnet-4, 1024 px")
    {'all': 37.8, 'seen': 42.2, 'unseen': 36.3}
    """
    return places()[where][name]


def span(name: str) -> tuple[float, float]:
    """Lowest and highest of a group whose single figures the paper only draws.

    >>> span("figure 3, unseen")
    (25.0, 32.5)
    """
    low, high = _document()["ranges"][name]
    return low, high


def figures() -> dict[str, Figure]:
    """Of every model that the paper's tables name, the first figure of unseen classes."""
    found: dict[str, Figure] = {}
    for where, models in places().items():
        for name, values in models.items():
            if "unseen" in values:
                found.setdefault(name, Figure(where, values["unseen"]))
    return found


def figure(where: str, name: str) -> float:
    """The figure of unseen classes of a model in one place of the paper.

    >>> figure("table 5", "hourglass-20"), figure("table 3", "hourglass-20")
    (32.2, 32.5)
    """
    return row(where, name)["unseen"]


def figure_of_seen(where: str, name: str) -> float | None:
    """The same of seen classes; None where that place of the paper has none.

    >>> figure_of_seen("table 5", "hourglass-20"), figure_of_seen("table 3", "hourglass-20")
    (39.8, None)
    """
    return row(where, name).get("seen")


def speeds() -> list[Speed]:
    """Time per image, where the paper has it."""
    return [Speed(one["model"], one.get("canvas_px"), one["milliseconds"]) for one in _document()["speeds"]]


def claims() -> list[Claim]:
    """Appendix B, in its order."""
    milliseconds = {speed.model: speed.milliseconds for speed in speeds()}
    return [
        Claim(
            id=one["id"],
            where=one["where"],
            model=one["model"],
            kind=one["kind"],
            figures={"all": milliseconds[one["speed"]]} if "speed" in one else _by_split(*one["row"]),
        )
        for one in _document()["appendix_b"]
    ]


def _by_split(where: str, name: str) -> dict[str, float]:
    return {split: value for split, value in row(where, name).items() if split in SPLITS}


@cache
def _document() -> dict[str, Any]:
    text = files("deepmac_distill").joinpath("paper.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
