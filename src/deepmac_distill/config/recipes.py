"""Pipeline files that come with the package, by name: ``demo``, ``coco_sample``, ``paper/teacher_hg100``."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "recipes"


def recipe_names() -> list[str]:
    """All of them, those for everybody before those of the paper."""
    names = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.toml")]
    return sorted(names, key=lambda name: (name.count("/"), name))


def recipe_file(what: str) -> Path | None:
    """The pipeline file that a teacher of `holdout.teachers` names, or that a run keeps; None: no recipe.

    Raises:
        ConfigError: a TOML file that is not there.
    """
    path = Path(what)
    kept = path / "config.json"
    if kept.is_file():
        return kept
    return located(path) if path.suffix == ".toml" or what in recipe_names() else None


def located(named: Path) -> Path:
    """The pipeline file at a path, else the recipe of that name.

    Raises:
        ConfigError: neither is there.
    """
    if named.is_file():
        return named
    if named.as_posix() in recipe_names():
        return FOLDER / named.with_name(f"{named.name}.toml")
    listed = "" if named.suffix else f", or a recipe: {', '.join(recipe_names())}"
    raise ConfigError(f"{named}: no such pipeline file; expected a TOML file{listed}")
