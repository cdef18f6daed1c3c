"""`deepmac init`: a recipe to edit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.options import command
from deepmac_distill.cli.terminal import say
from deepmac_distill.config import FOLDER, recipe_names
from deepmac_distill.errors import ConfigError
from deepmac_distill.files import written_whole


@command(app)
def init(
    file: Annotated[Path, typer.Argument(help="Pipeline file to write; must not be there.")],
    source: Annotated[str, typer.Option("--from", help="Recipe to begin with.")] = "coco_sample",
) -> None:
    """Write a recipe to a file of your own, to edit and run."""
    if source not in recipe_names():
        raise ConfigError(f"--from {source}: no such recipe; expected one of {', '.join(recipe_names())}")
    if file.exists() or file.is_symlink():
        raise ConfigError(f"{file}: is there already; expected a new file")
    if file.suffix != ".toml":
        raise ConfigError(f"{file}: expected a name that ends in .toml")
    if not file.parent.is_dir():
        raise ConfigError(f"{file}: no such folder; expected one that is there")
    with written_whole(file) as aside:
        aside.write_bytes((FOLDER / f"{source}.toml").read_bytes())
    say(f"{file}: {source}; next: {shlex.join(['deepmac', 'run', str(file)])}")
