"""How far a run is: of each stage whether it is done, stopped, at work, stale or not begun. Read, not run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from deepmac_distill.chain import STAGES, Stage, command_line
from deepmac_distill.errors import RunError
from deepmac_distill.files import OLD
from deepmac_distill.made_with import read_done
from deepmac_distill.regular import opened, read_small
from deepmac_distill.rundir import BEGUN, DONE, TIME, UNITS, outputs_digest
from deepmac_distill.runlock import is_held
from deepmac_distill.shards import Shard
from deepmac_distill.shared_stage import begun_shards

_LAST_BYTES = 2**16  # of a log, which hold many of its lines
_SHOWN = 5  # shards, at once
_BROKEN = (ValueError, RecursionError)  # of a file that is no JSON
State = Literal["done", "at work", "stopped", "stale", "broken", "not begun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """How one stage stands."""

    stage: str
    state: State
    when: datetime | None = None  # it ended, or was written to last
    made: tuple[str, ...] = ()  # its files for people
    detail: str = ""  # where it was stopped, or why it is stale or broken
    shards: tuple[Shard, ...] = ()  # those that have begun and are not joined


def status_of(run: Path, planned: Iterable[Stage]) -> list[StageStatus]:
    """Every stage that is planned, and every other one that the run has begun.

    Raises:
        RunError: there is no run.
    """
    if not (run / "environment.json").is_file():
        raise RunError(f"{run}: no run there; expected a run directory, such as runs/demo")
    names = {stage.name for stage in planned}
    begun = {path.name.removesuffix(".part") for path in run.iterdir() if _is_stage(path)}
    order = [*(name for name in STAGES if name in names | begun), *sorted(begun - STAGES.keys())]
    held = is_held(run)
    found: dict[str, StageStatus] = {}
    for name in order:
        found[name] = _status(run, name, held, found)
    return list(found.values())


def to_do(run: Path, found: Iterable[StageStatus]) -> list[str]:
    """The commands, for a shell, that bring a run to its end: what is stale or broken first, then the rest.

    Derived stages follow by themselves. Of a stage that shards have begun it is the other shards, or what
    joins them; the rest comes after.
    """
    found = [one for one in found if one.stage in STAGES]
    stages = [(STAGES[one.stage], one.state) for one in found]
    redo = [stage for stage, state in stages if state in ("stale", "broken") and not stage.derived]
    commands = [command_line(stage.command, out=run, force=True) for stage in redo]
    if sharded := [one for one in found if one.shards and one.state == "stopped"]:
        return [*commands, *(command for one in sharded for command in _of_shards(run, one))]
    open_stages = [stage for stage, state in stages if state in ("stopped", "not begun")]
    if open_stages or any(state == "stale" for _, state in stages):
        commands.append(command_line("run", run / "config.json", out=run))
    return list(dict.fromkeys(commands))


def _of_shards(run: Path, one: StageStatus) -> list[str]:
    """The commands of the shards that have not begun, or of what joins them all."""
    command, count = STAGES[one.stage].command, max(shard.count for shard in one.shards)
    begun = {shard.index for shard in one.shards if shard.count == count}
    missing = [Shard(index, count) for index in range(count) if index not in begun][:_SHOWN]
    return [command_line(f"{command} --shard {shard}", out=run) for shard in missing] or [
        command_line(f"assemble {command}", out=run)
    ]


def _is_stage(path: Path) -> bool:
    if path.suffix == OLD:  # of a stage whose successor is being renamed
        return False
    return (path / DONE).exists() or (path.name.endswith(".part") and (path / BEGUN).exists())


def _status(run: Path, name: str, held: bool, before: dict[str, StageStatus]) -> StageStatus:
    whole, part = run / name, run / f"{name}.part"
    if part.is_dir() and (held or not whole.exists()):  # a forced one leaves the old where it is
        last = max((path.stat().st_mtime for path in part.rglob("*")), default=part.stat().st_mtime)
        when = datetime.fromtimestamp(last, UTC)
        shards = tuple(sorted(begun_shards(part / UNITS), key=lambda shard: shard.index))
        return StageStatus(
            stage=name,
            state="at work" if held else "stopped",
            when=when,
            detail=_place(run, name, part) + (f", of shards {', '.join(map(str, shards))}" if shards else ""),
            shards=shards,
        )
    if not whole.exists():
        return StageStatus(stage=name, state="not begun")
    try:
        record = read_done(whole / DONE)
        missing = [file for file in record["outputs"] if not (whole / file).exists()]
    except (RunError, KeyError, TypeError):
        return StageStatus(stage=name, state="broken", detail=f"{DONE} cannot be read")
    when = _ended(record, whole / DONE)
    if missing:
        return StageStatus(stage=name, state="broken", when=when, detail=f"{missing[0]} is missing")
    products = STAGES[name].makes if name in STAGES else ()
    made = tuple(product.file for product in products if (whole / product.file).exists())
    why = _stale(run, record, before)
    return StageStatus(stage=name, state="stale" if why else "done", when=when, made=made, detail=why)


def learned_the_same(student: Mapping[str, Any], selection: Mapping[str, Any]) -> bool:
    """Whether a student that was trained with these inputs learned what a selection with those holds.

    Where it does not learn from quality, a calibration adds columns to the selection and nothing to learn.

    Args:
        student, selection: inputs of the stages `student` and `select`.
    """
    names = {"masks.parquet": "student labels", "data.train_annotations": "student annotations"}
    rules = {name: name for name in selection if name.startswith("labels.")}
    quality = {"calibration": "calibration"} if "calibration" in student else {}
    pairs = {**names, **rules, **quality}
    return all(theirs in student and selection.get(ours) == student[theirs] for ours, theirs in pairs.items())


def _stale(run: Path, record: dict[str, Any], before: dict[str, StageStatus]) -> str:
    """Why a stage that is done is of an earlier state of the run; empty where it is not."""
    for name, digest in record.get("made_from", {}).items():
        try:
            now = outputs_digest(run / name)
        except (RunError, KeyError, TypeError):
            now = None
        if name == "select" and now and _is_of_selection(run, record):
            continue
        if now != digest:
            return f"{name} was redone since" if now else f"{name} is not done"
        if name in before and before[name].state == "stale":
            return f"{name} is stale"
    return ""


def _is_of_selection(run: Path, record: dict[str, Any]) -> bool:
    try:
        return learned_the_same(record["inputs"], read_done(run / "select" / DONE)["inputs"])
    except (RunError, KeyError, TypeError):
        return False


def _ended(record: dict[str, Any], path: Path) -> datetime:
    """When a stage ended; runs of earlier versions do not record it."""
    if isinstance(ended := record.get("ended"), str):
        with suppress(ValueError):  # no time of ours
            return datetime.strptime(ended, TIME).replace(tzinfo=UTC)
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _place(run: Path, name: str, part: Path) -> str:
    """How far a stage is that has begun."""
    log = part / "metrics.jsonl"
    for line in reversed(_last_lines(log)):
        try:
            return f"step {json.loads(line)['step'] + 1}{_of_steps(run, name)}"
        except (*_BROKEN, KeyError, TypeError):  # a writer that was killed left half a line
            continue
    units = len(list((part / UNITS).rglob("*.parquet")))  # box noise has a folder for each strength
    return f"{units} units" if units else "its beginning"


def _last_lines(log: Path) -> list[str]:
    try:
        with opened(log) as file:
            file.seek(max(log.stat().st_size - _LAST_BYTES, 0))
            return file.read(_LAST_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []


def _of_steps(run: Path, name: str) -> str:
    if name not in STAGES or not (run / "config.json").exists():
        return ""
    try:
        config = json.loads(read_small(run / "config.json").decode())
        return f" of {config[STAGES[name].role]['train']['steps']}"
    except (*_BROKEN, OSError, KeyError, TypeError):
        return ""
