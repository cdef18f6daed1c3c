"""Options of a command to the job that a stage is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deepmac_distill.cli.options import Code, Looking, Redo, Run, values_of
from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.config import Pipeline, load_pipeline, located
from deepmac_distill.errors import ConfigError

if TYPE_CHECKING:
    from deepmac_distill.stages.job import Job

PATHS = ("root", "train_annotations", "train_images", "val_annotations", "val_images")


def job_of(config: Path | None, run: Run, *groups: object, values: Mapping[str, object] | None = None) -> Job:
    """What to do and where: a pipeline file, else the configuration that the run at `run.out` keeps.

    Args:
        groups: options of a command, of `cli.options`.
        values: more of them by key; those from --set come last.

    Raises:
        ConfigError: no pipeline and no data are named, or a key, a value or the device is refused.
    """
    given, overrides, terminal = (
        _of_data(values_of(run, *groups)) | dict(values or {}),
        run.set_ or [],
        Terminal(),
    )
    kept = run.out / "config.json" if run.out is not None and (run.out / "config.json").exists() else None
    if not (config or kept) and not any("data." in key for key in [*given, *overrides]):
        where = f"{run.out}: no run there" if run.out else "no run"
        raise ConfigError(f"{where} and no data named; expected --config, --annotations, or --out of a run")
    config = None if config is None else located(config)
    pipeline: Pipeline = load_pipeline(config or kept, overrides, given, terminal.note)
    if config is not None and pipeline.name == "run":
        pipeline = dataclasses.replace(pipeline, name=config.stem)
    from deepmac_distill.devices import pick_device  # imports torch
    from deepmac_distill.rundir import RunDir
    from deepmac_distill.stages.job import Job

    pick_device(pipeline.device)  # before anything is written
    resolved = config is not None and config.suffix == ".json"  # as a run keeps it, beside the file itself
    return Job(
        pipeline=pipeline,
        source=None if config is None or resolved else config.read_text(encoding="utf-8"),
        run=RunDir(run.out or Path("runs") / pipeline.name),
        progress=terminal,
        force=any(isinstance(group, Redo) and group.force for group in groups),
        allow_code=any(isinstance(group, Code) and group.allow_code for group in groups),
        look={
            key: value
            for group in groups
            if isinstance(group, Looking)
            for key, value in group.changes.items()
        },
    )


def _of_data(given: dict[str, object]) -> dict[str, object]:
    """Options that name data name all of it: no scenes, no validation set of a pipeline file's other data."""
    if any(f"data.{name}" in given for name in PATHS):
        given = {**given, "data.source": "coco"}
    if "data.train_annotations" in given:
        given = {"data.val_annotations": "", **given}
    return given


def named_paths(given: list[str], form: str) -> dict[str, Path]:
    """Words such as student=runs/x, each heading once.

    >>> {name: str(path) for name, path in named_paths(["a=b.json"], "NAME=FILE").items()}
    {'a': 'b.json'}
    """
    paths: dict[str, Path] = {}
    for text in given:
        heading, equals, path = text.partition("=")
        if not (heading and equals and path) or heading in paths:
            raise ConfigError(f"{text}: expected {form}, each heading once")
        paths[heading] = Path(path)
    return paths
