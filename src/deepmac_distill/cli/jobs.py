"""Options of a command to the job that a stage is given."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepmac_distill.chain import SEED, seed_runs
from deepmac_distill.cli.buckets import copy_named
from deepmac_distill.cli.cutting import Cutting
from deepmac_distill.cli.joining import met
from deepmac_distill.cli.options import Code, Looking, Redo, Run, values_of
from deepmac_distill.cli.sharding import Sharding
from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.config import Pipeline, load_pipeline, located
from deepmac_distill.errors import ConfigError, RunError
from deepmac_distill.files import read_text
from deepmac_distill.links import inner
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.torchrun import ALONE, place_of

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
    config = None if config is None else located(config)
    force = any(isinstance(group, Redo) and group.force for group in groups)
    sharding = next((group for group in groups if isinstance(group, Sharding)), None)
    # A shard that is named leaves nothing to torchrun; processes that do shards never meet.
    place = ALONE if sharding and sharding.shard else place_of(os.environ)
    alone = sharding is not None and sharding.apart
    terminal: Progress = Silent() if place.rank and not alone else Terminal()
    pipeline = _pipeline(config, run, groups, values, terminal.note)
    from deepmac_distill.devices import pick_device  # imports torch
    from deepmac_distill.rundir import RunDir
    from deepmac_distill.stages.job import Job

    device = pick_device(pipeline.device, place)  # before anything is written
    at = RunDir(run.out or Path("runs") / pipeline.name)  # looked at by all before the first writes to it
    resolved = config is not None and config.suffix == ".json"  # as a run keeps it, beside the file itself
    return Job(
        pipeline=pipeline,
        source=None if config is None or resolved else read_text(config),
        run=at,
        progress=terminal,
        place=place,
        ranks=met(ALONE if alone else place, device),
        force=force,
        allow_code=any(isinstance(group, Code) and group.allow_code for group in groups),
        look={
            key: value
            for group in groups
            if isinstance(group, Looking)
            for key, value in group.changes.items()
        },
        shard=sharding.asked(place, force) if sharding and alone else None,
        asked_cut=next((group.asked for group in groups if isinstance(group, Cutting)), None),
    )


def jobs_of_seeds(
    config: Path | None, run: Run, seeds: int, *groups: object, values: Mapping[str, object] | None = None
) -> tuple[Path, dict[int, Job]]:
    """One job for each of several seeds, in OUT/seed-N; returns OUT and the jobs by seed.

    The seeds are that of the pipeline (or --seed) and those after it; scenes are those of the first. Without
    a pipeline file the runs that are there go on.

    Raises:
        ConfigError: as `job_of`.
        RunError: OUT holds something else than runs of several seeds.
    """
    there = seed_runs(run.out) if run.out is not None else {}
    first, values = run.seed if run.seed is not None else min(there, default=0), dict(values or {})
    if run.out is not None and config is None and first in there:
        out = run.out
    else:
        pipeline = _pipeline(None if config is None else located(config), run, groups, values)
        out, first = run.out or Path("runs") / pipeline.name, pipeline.seed
        if pipeline.data.source == "scenes" and pipeline.data.scenes.seed < 0:
            values["data.scenes.seed"] = first
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not there):
        raise RunError(f"{out}: holds no runs of several seeds; expected theirs, or a new directory")
    jobs = {
        seed: job_of(
            config,
            dataclasses.replace(run, out=inner(out, f"{SEED}{seed}"), seed=seed),
            *groups,
            values=values,
        )
        for seed in range(first, first + seeds)
    }
    if strays := [seed for seed, job in jobs.items() if job.pipeline.seed != seed]:
        raise ConfigError(f"--set seed: got {jobs[strays[0]].pipeline.seed} for every run, expected --seed")
    return out, jobs


def _pipeline(
    config: Path | None,
    run: Run,
    groups: Sequence[object],
    values: Mapping[str, object] | None,
    note: Callable[[str], None] = lambda text: None,
) -> Pipeline:
    """The pipeline of a file, else of the run, with the values of all options."""
    given, overrides = _of_data(values_of(run, *groups)) | dict(values or {}), run.set_ or []
    kept = run.out / "config.json" if run.out is not None and (run.out / "config.json").exists() else None
    if not (config or kept) and not any("data." in key for key in [*given, *overrides]):
        several = " of one seed" if run.out and seed_runs(run.out) else ""
        where = f"{run.out}: no run{several} there" if run.out else "no run"
        raise ConfigError(f"{where} and no data named; expected --config, --annotations, or --out of a run")
    named = given.keys() | {override.partition("=")[0].strip() for override in overrides}
    if not (config or kept or named & {"data.root", "data.train_annotations"}):
        given = {"data.train_annotations": "", **given}  # the default is in a folder that nobody named
    pipeline = load_pipeline(config or kept, overrides, given, note)
    if config is not None and pipeline.name == "run":
        return dataclasses.replace(pipeline, name=config.stem)
    return pipeline


def _of_data(given: dict[str, object]) -> dict[str, object]:
    """Options that name data name all of it: no scenes, no validation set of a pipeline file's other data."""
    if any(f"data.{name}" in given for name in PATHS):
        given = {**given, "data.source": "coco"}
    if "data.train_annotations" in given:
        given = {"data.val_annotations": "", **given}
    return given


def refuse_look_of_the_run(run: Run, model: object) -> None:
    """Refuse keys of a run's look beside a model that is named, which looks as its own card or run has it.

    Args:
        model: its path; else nothing is refused.

    Raises:
        ConfigError: names the key and what to write.
    """
    for override in run.set_ or []:
        role, _, key = override.strip().partition(".look.")
        if isinstance(model, Path) and role in ("teacher", "student") and key:
            raise ConfigError(
                f"--set {override}: is how the run's own {role} looks; expected --look {key} for {model}"
            )


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
        paths[heading] = copy_named(path)
    return paths
