"""A run's folder: what was done with which inputs, so that work is skipped, resumed or refused, never mixed.

A stage works in ``<stage>.part`` and is renamed to ``<stage>`` when it is whole. Beside its outputs is
``done.json``: its inputs by name, what those of them that are hashes are of, and a hash of every output.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmac_distill.chain import STAGES, command_line, seed_runs
from deepmac_distill.comparing import PLAINLY, Comparing, Inputs
from deepmac_distill.errors import DistillError, RunError
from deepmac_distill.files import (
    discard,
    first_odd,
    is_empty,
    is_leftover,
    old_of,
    remove,
    remove_leftovers,
    replace_folder,
    settle_folder,
    sha256_of_json,
    write_json,
    write_text,
)
from deepmac_distill.links import inner, written_through
from deepmac_distill.made_with import hashes_of, read_begun, read_done, refuse_edits, why_made_anew
from deepmac_distill.progress import Progress
from deepmac_distill.runlock import Held, is_lease, run_lock
from deepmac_distill.storage.location import is_remote, shown

About = Mapping[str, Mapping[str, Any]]  # input that is a hash -> fact ("file", "data.seen") -> JSON value
DONE = "done.json"
TIME = "%Y-%m-%dT%H:%M:%SZ"
BEGUN = "inputs.json"  # of a stage that is not done
STATE, UNITS = "state.pt", "units"  # to go on from: of a training, and the parts that are joined
_ONLY_READ = (errno.EROFS, errno.EACCES, errno.EPERM)  # a run that cannot be written to can still be read
NOT_COMPARED = {"metrics.jsonl", STATE, UNITS, DONE, BEGUN}  # times, and means to an end


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder of one run; nothing is written before its first stage begins.

    Raises:
        RunError: the path is a file, or a folder that holds something else than a run.
    """

    path: Path

    def __post_init__(self) -> None:
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            raise RunError(f"{self.path}: holds bytes that are not UTF-8; expected a path in UTF-8") from None
        if is_remote(self.path):
            raise RunError(f"{shown(self.path)}: is in a bucket; expected a path (remote_run.run_in_bucket)")
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file; expected a run directory")
        paths = self.path.iterdir() if self.path.is_dir() else ()
        entries = {path.name for path in paths if not (is_lease(path.name) or is_leftover(path))}
        if "environment.json" not in entries and (runs := seed_runs(self.path)):
            raise RunError(
                f"{self.path}: holds runs of several seeds; expected one of them, such as "
                f"{next(iter(runs.values()))}, or --seeds"
            )
        if entries and "environment.json" not in entries:
            raise RunError(f"{self.path}: holds files but no run; expected an empty or new directory, or one")

    def begin(self) -> None:
        """Make the folder, with the description of this machine by which it is known for a run."""
        path = self.path / "environment.json"
        if not path.exists():
            from deepmac_distill.devices import environment  # imports torch, which reading a run does without

            self.path.mkdir(parents=True, exist_ok=True)
            write_json(path, environment())

    def record_config(self, resolved: dict[str, Any], source: str | None) -> None:
        """Keep the pipeline file's text verbatim and the resolved values beside it."""
        write_json(self.path / "config.json", resolved)
        if source is not None:
            write_text(self.path / "config.toml", source)

    def output(self, stage: str, name: str) -> Path:
        """A file of a stage of the chain that is done.

        Raises:
            RunError: the stage is not done, or the file was changed since.
        """
        path = self.path / stage / name
        if not path.exists():
            command = command_line(STAGES[stage].command, out=self.path)
            raise RunError(
                f"{self.path}: no {stage}/{name}; expected `{command}` to be done in this run before"
            )
        if (self.path / stage / DONE).exists():
            outputs = read_done(self.path / stage / DONE)["outputs"]
            if name not in outputs:
                raise RunError(f"{path}: is none of the files that {stage} made; --force redoes it")
            refuse_edits(self.path / stage, {name: outputs[name]})
        return path

    def sha256_of_output(self, stage: str, name: str) -> str | None:
        """The recorded hash of a file that `output` has just checked; None where there is no record."""
        done = self.path / stage / DONE
        return read_done(done)["outputs"][name] if done.exists() else None

    def run_stage(
        self,
        stage: str,
        inputs: Inputs,
        work: Callable[[Path], None],
        progress: Progress,
        force: bool = False,
        derived: bool = False,
        about: About | None = None,
        comparing: Comparing = PLAINLY,
    ) -> Path:
        """Do `work` in the stage's folder, unless it is done with the same inputs; returns the folder.

        Args:
            inputs: what the outputs depend on; the names are shown to the user.
            force: start afresh, whatever was done before.
            derived: the stage is cheap and follows from stages before it: other inputs redo it.
            about: what hashes among the inputs are of. Reported where such an input differs, never compared,
                so that a run which kept other facts, or none, is as good.
            comparing: how inputs are compared with those that are recorded.

        Raises:
            RunError: the stage was done or begun with other inputs, named with old and new value, or an
                output was changed since; `force` starts the stage afresh instead.
        """
        record = {"inputs": comparing.compared(inputs), "about": about or {}}
        now = json.loads(json.dumps(record))  # as it will be read back
        with ExitStack() as stack:
            try:
                held = stack.enter_context(run_lock(self.path, note=progress.note))
            except OSError as error:
                done = self.inputs_of(stage) if error.errno in _ONLY_READ and not force else None
                if done is None or comparing.compared(done) != now["inputs"]:
                    raise
                return _skipped(self.path / stage, progress)
            return self._run_stage(stage, now, work, progress, force, derived, comparing, held)

    def _run_stage(
        self,
        stage: str,
        now: dict[str, Any],
        work: Callable[[Path], None],
        progress: Progress,
        force: bool,
        derived: bool,
        comparing: Comparing,
        held: Held,
    ) -> Path:
        whole, part = self.path / stage, self.path / f"{stage}.part"
        refuse_foreign(whole, part)
        remove_leftovers(self.path)
        _settle(whole, part)
        done, why = self.inputs_of(stage), ""
        if force or (derived and (done is None or comparing.compared(done) != now["inputs"])):
            discard(part)
        elif (begun := _begun(part, progress)) and comparing.compared(begun["inputs"]) == now["inputs"]:
            progress.note(f"{stage}: goes on where it was stopped")
        elif whole.exists():
            record = read_done(whole / DONE)
            why = why_made_anew(self.path, stage, record, now, comparing)
            if not why:
                return _skipped(whole, progress)
        elif begun:
            why = why_made_anew(self.path, stage, begun, now, comparing)
        if why:
            progress.note(f"{stage}: made anew, since a key changed: {why}")
            discard(part)
        self.begin()  # first: files without it are no run
        part.mkdir(exist_ok=True)
        write_json(part / BEGUN, now)
        started = time.perf_counter()
        try:
            work(part)
        except DistillError:
            _begun(part, progress)  # where it refused before it did anything, nothing is left
            raise
        record = {
            **now,
            "made_from": _made_from(self.path, stage),
            "outputs": hashes_of(part, NOT_COMPARED),
            "seconds_since_last_start": round(time.perf_counter() - started, 1),
            "ended": time.strftime(TIME, time.gmtime()),
        }
        held.require()
        write_json(part / DONE, record)
        replace_folder(part, whole)
        _remove_scaffolding(whole)
        return whole

    def inputs_of(self, stage: str) -> Inputs | None:
        """What a stage that is done was made with; None where it is not done, or its record is damaged."""
        path = self.path / stage / DONE
        try:
            return read_done(path)["inputs"] if path.exists() else None
        except RunError:
            return None

    def log_validation_reading(self, stage: str, annotations: Path) -> None:
        """Note that a validation set was read, and by what: nothing may be tuned on it unseen."""
        path = inner(self.path, "validation_readings.jsonl")
        with path.open("a", encoding="utf-8") as log:
            when = time.strftime(TIME, time.gmtime())
            log.write(json.dumps({"stage": stage, "annotations": str(annotations), "time": when}) + "\n")


def _skipped(whole: Path, progress: Progress) -> Path:
    refuse_edits(whole, read_done(whole / DONE)["outputs"])
    progress.note(f"{whole.name}: done before, skipped")
    return whole


def _made_from(run: Path, stage: str) -> dict[str, str]:
    """Digests of the stages before that are done here. Status compares them; a skip never depends on them."""
    reads = STAGES[stage].reads if stage in STAGES else ()
    return {name: digest for name in reads if (digest := outputs_digest(run / name))}


def outputs_digest(folder: Path) -> str | None:
    """One hash for the outputs of a stage; None where it is not done."""
    return sha256_of_json(read_done(folder / DONE)["outputs"]) if (folder / DONE).exists() else None


def refuse_foreign(whole: Path, part: Path) -> None:
    """Refuse to work in, or to replace, what this program did not make.

    Raises:
        RunError: names the link, the file, or the folder without a record.
    """
    if os.path.lexists(part):
        if odd := first_odd(part):
            raise written_through(odd) if odd.is_symlink() else _is_foreign(odd)
        if not part.is_dir() or not (is_empty(part) or (part / BEGUN).exists()):
            raise _is_foreign(part)
    if os.path.lexists(whole) and not (whole / DONE).exists():
        raise _is_foreign(whole)


def _is_foreign(path: Path) -> RunError:
    return RunError(f"{path}: is not what this run made; expected its own or nothing; move it away")


def _settle(whole: Path, part: Path) -> None:
    """End what a killed process has begun: the rename of a stage that is whole, or its last cleaning."""
    if (part / DONE).exists():
        try:
            refuse_edits(part, read_done(part / DONE)["outputs"])
        except RunError:  # damaged since: the work is done again
            (part / DONE).unlink()
        else:
            replace_folder(part, whole)
    settle_folder(whole)
    remove(old_of(part))
    if not whole.is_symlink():  # nothing is written through it
        _remove_scaffolding(whole)


def _begun(part: Path, progress: Progress) -> dict[str, Any] | None:
    """The record of work to go on from; None where there is none, or where the record is damaged.

    Beside a stage that is done it is that of a forced one, which was stopped.
    """
    remove_leftovers(part)
    if not _holds_work(part):
        discard(part)
        return None
    try:
        return read_begun(part / BEGUN)
    except RunError:
        progress.note(f"{part / BEGUN}: damaged; the stage begins again")
        discard(part)
        return None


def _holds_work(part: Path) -> bool:
    """Does a stopped stage hold anything to go on from?"""
    return any(path.name not in (BEGUN, "metrics.jsonl") for path in part.rglob("*") if path.is_file())


def _remove_scaffolding(whole: Path) -> None:
    """What a stage needs only until it is done."""
    for name in (STATE, UNITS, BEGUN):
        remove(whole / name)
