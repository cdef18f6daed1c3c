"""Flags of a command to the job that a stage is given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.config import Pipeline, load_pipeline
from deepmac_distill.errors import ConfigError

if TYPE_CHECKING:
    from deepmac_distill.stages import Job


def overrides_of(
    data: str | None,
    annotations: str | None,
    images: str | None,
    val_annotations: str | None,
    val_images: str | None,
    seen: list[str] | None,
    device: str | None,
    seed: int | None = None,
    strict: bool | None = None,
) -> list[str]:
    """Flags as overrides, `key=value`; a flag that was not given overrides nothing."""
    values = {
        "data.root": data,
        "data.train_annotations": annotations,
        "data.train_images": images,
        "data.val_annotations": val_annotations,
        "data.val_images": val_images,
        "data.seen": names_of(seen) if seen else None,
        "data.strict": strict,
        "device": device,
        "seed": seed,
    }
    given = {key: value for key, value in values.items() if value is not None}
    if any(key.startswith("data.") and key not in ("data.seen", "data.strict") for key in given):
        given["data.source"] = "coco"
    if annotations is not None:
        given.setdefault("data.val_annotations", "")  # a pipeline file's own would belong to other data
    return [f"{key}={json.dumps(value)}" for key, value in given.items()]


def job_of(
    config: Path | None, out: Path | None, flags: list[str], overrides: list[str] | None, force: bool
) -> Job:
    """What to do and where: a pipeline file, else the configuration that the run at `out` keeps.

    Args:
        flags: of `overrides_of`; `overrides`, from --set, come after them.

    Raises:
        ConfigError: nothing says what to do, or a key, a value or the device is refused.
    """
    kept = out / "config.json" if out is not None and (out / "config.json").exists() else None
    if not (config or kept) and not any("data." in given for given in [*flags, *(overrides or [])]):
        raise ConfigError(
            f"{out or 'deepmac'}: no run there and no data named; expected --config or --annotations"
        )
    pipeline: Pipeline = load_pipeline(config or kept, flags + (overrides or []))
    if config is not None and pipeline.name == "run":
        pipeline = dataclasses.replace(pipeline, name=config.stem)
    from deepmac_distill.devices import pick_device  # imports torch
    from deepmac_distill.rundir import RunDir
    from deepmac_distill.stages import Job

    pick_device(pipeline.device)  # before anything is written
    directory = RunDir(out or Path("runs") / pipeline.name)
    resolved = config is not None and config.suffix == ".json"  # as a run keeps it, beside the file itself
    source = None if config is None or resolved else config.read_text(encoding="utf-8")
    return Job(pipeline=pipeline, source=source, run=directory, progress=Terminal(), force=force)


def names_of(seen: list[str]) -> list[str]:
    """--seen a,b and --seen a --seen b are the same.

    >>> names_of(["car,person", "dog"])
    ['car', 'person', 'dog']
    """
    return [name for part in seen for name in part.split(",")]
