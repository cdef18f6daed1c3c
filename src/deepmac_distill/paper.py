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


def figures() -> dict[str, Figure]:
    """Of every model that the paper's tables name, the first figure."""
    found: dict[str, Figure] = {}
    for where, models in _document()["tables"].items():
        for name, value in models.items():
            found.setdefault(name, Figure(where, value))
    return found


def figure(where: str, name: str) -> float:
    """The figure of a model in one place of the paper.

    >>> figure("table 5", "hourglass-20"), figure("table 3", "hourglass-20")
    (32.2, 32.5)
    """
    value: float = _document()["tables"][where][name]
    return value


def figure_of_seen(where: str, name: str) -> float | None:
    """The same of seen classes; None where that place of the paper has none.

    >>> figure_of_seen("table 5", "hourglass-20"), figure_of_seen("table 3", "hourglass-20")
    (39.8, None)
    """
    value: float | None = _document()["seen"].get(where, {}).get(name)
    return value


def speeds() -> list[Speed]:
    """Time per image, where the paper has it."""
    return [Speed(row["model"], row.get("canvas_px"), row["milliseconds"]) for row in _document()["speeds"]]


def claims() -> list[Claim]:
    """Appendix B, in its order."""
    milliseconds = {speed.model: speed.milliseconds for speed in speeds()}
    return [
        Claim(
            id=row["id"],
            where=row["where"],
            model=row["model"],
            kind=row["kind"],
            figures={"all": milliseconds[row["speed"]]} if "speed" in row else row["figures"],
        )
        for row in _document()["appendix_b"]
    ]


@cache
def _document() -> dict[str, Any]:
    text = files("deepmac_distill").joinpath("paper.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
