"""The starter: a small teacher, already trained, that comes with the package."""

from __future__ import annotations

from pathlib import Path

NAME = "starter"
WEIGHTS = Path(__file__).parents[1] / "starter" / "weights.safetensors"


def note_of(model: Path | None) -> str:
    """What a user should know of the name, if anything."""
    if model != Path(NAME) or not model.exists():
        return ""
    return f"{NAME}: is the file or folder of that name here, which comes before the starter of the package"


def located(model: Path) -> Path:
    """Where a model is that was named: a file or a run directory there, else the starter by its name."""
    return WEIGHTS if model == Path(NAME) and not model.exists() else model
