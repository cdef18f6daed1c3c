"""A stage that several processes do together, a shard each, in one folder, before one of them joins it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deepmac_distill.comparing import PLAINLY, Comparing, Inputs
from deepmac_distill.errors import ConfigError, RunError
from deepmac_distill.files import write_json
from deepmac_distill.lease import create
from deepmac_distill.made_with import read_begun, read_done, refuse_changes
from deepmac_distill.progress import Progress
from deepmac_distill.rundir import BEGUN, DONE, About, RunDir, refuse_foreign
from deepmac_distill.runlock import run_lock
from deepmac_distill.shards import Shard, missing_words, parse_shard

_ALIKE = "computed_with"  # of the record of a stage that shards have begun
_MARK = "shard "  # begins the names of empty files, one for each shard that has begun


def run_shard(
    run: RunDir,
    stage: str,
    shard: Shard,
    inputs: Inputs,
    work: Callable[[Path], None],
    progress: Progress,
    about: About | None = None,
    comparing: Comparing = PLAINLY,
    computed_with: Mapping[str, Any] | None = None,
) -> Path:
    """Do a shard of a stage beside processes that do others; returns the folder, where the parts are.

    Args:
        inputs, about, comparing: as in `RunDir.run_stage`.
        work: gets the folder, and writes in it only what belongs to the shard.
        computed_with: JSON values that all shards have in common, though they are no inputs of the stage.

    Raises:
        RunError: another process does the same shard or works in the run alone; or the stage was begun, or is
            done, with other inputs, named with old and new value; or others compute with something else.
    """
    record = {"inputs": comparing.compared(inputs), "about": about or {}, _ALIKE: computed_with or {}}
    now = json.loads(json.dumps(record))
    with run_lock(run.path, f"{stage} {shard}", progress.note) as held:
        whole, part = run.path / stage, run.path / f"{stage}.part"
        refuse_foreign(whole, part)
        if whole.exists():
            _refuse_others(run.path, stage, read_done(whole / DONE), now, comparing)
            progress.note(f"{stage}: done before, skipped")
            return whole
        if not (run.path / "environment.json").exists():  # first: files without it are no run
            from deepmac_distill.devices import environment  # imports torch

            write_json(run.path / "environment.json", environment())
        part.mkdir(parents=True, exist_ok=True)
        if not create(part / BEGUN, json.dumps(now, indent=2, ensure_ascii=False).encode()):
            begun = read_begun(part / BEGUN)
            _refuse_others(run.path, stage, begun, now, comparing)
            _require_alike(run.path, stage, shard, begun.get(_ALIKE), now[_ALIKE])
        work(part)
        held.require()
    return part


def _require_alike(run: Path, stage: str, shard: Shard, theirs: object, mine: Mapping[str, Any]) -> None:
    if isinstance(theirs, dict):  # else a process that does all units began them
        for name in sorted(theirs.keys() & mine.keys()):
            if theirs[name] != mine[name]:
                raise RunError(
                    f"{run}: shard {shard} of {stage}: computes with {name} = {mine[name]}, shards before it "
                    f"with {theirs[name]}; expected the same in all"
                )


def mark_shard(units: Path, shard: Shard) -> None:
    """Leave word beside the parts of units that a shard of so many has begun."""
    units.mkdir(parents=True, exist_ok=True)
    (units / f"{_MARK}{shard.index} of {shard.count}").touch()


def require_all(run: Path, stage: str, units: Path, missing: Sequence[int], count: int, again: str) -> None:
    """Refuse to join a stage of which units are missing; all that is there stays.

    Args:
        units: the folder of their parts.
        missing: their numbers.
        count: how many units there are.
        again: the command that does them.

    Raises:
        RunError: names them, and the shards that they belong to.
    """
    if missing:
        words = missing_words(missing, count, (shard.count for shard in begun_shards(units)))
        raise RunError(f"{run}: {stage}: {words}; expected all; `{again}` does them")


def begun_shards(units: Path) -> Iterator[Shard]:
    """The shards that have begun in the folder of a stage's parts."""
    for path in units.glob(f"{_MARK}*"):
        with suppress(ConfigError):
            yield parse_shard(path.name.removeprefix(_MARK).replace(" of ", "/"))


def _refuse_others(
    run: Path, stage: str, record: Mapping[str, object], now: dict[str, object], comparing: Comparing
) -> None:
    recorded = {**record, "inputs": comparing.compared(record["inputs"])}  # type: ignore[arg-type]
    refuse_changes(run, stage, recorded, now)
