"""The starter: a small teacher, already trained, that comes with the package."""

from __future__ import annotations

from pathlib import Path

NAME = "starter"
WEIGHTS = Path(__file__).parents[1] / "starter" / "weights.safetensors"


def located(model: Path) -> Path:
    """Where a model is that was named: a file or a run directory there, else the starter by its name."""
    return WEIGHTS if model == Path(NAME) and not model.exists() else model
