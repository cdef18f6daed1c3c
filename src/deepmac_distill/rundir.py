"""A run's folder: what was done with which inputs, so that work is skipped, resumed or refused, never mixed.

A stage works in ``<stage>.part`` and is renamed to ``<stage>`` when it is whole. Beside its outputs is
``done.json``: its inputs by name, what those of them that are hashes are of, and a hash of every output.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmac_distill.chain import STAGES, command_line, seed_runs
from deepmac_distill.errors import RunError
from deepmac_distill.files import remove_leftovers, sha256_of_file, sha256_of_json, write_json
from deepmac_distill.progress import Progress
from deepmac_distill.runlock import NAME as LOCK
from deepmac_distill.runlock import run_lock

Inputs = Mapping[str, Any]  # name a user knows ("teacher.train.lr", "labels") -> JSON value
About = Mapping[str, Mapping[str, Any]]  # input that is a hash -> fact ("file", "data.seen") -> JSON value
DONE = "done.json"
TIME = "%Y-%m-%dT%H:%M:%SZ"
NOT_COMPARED = {"metrics.jsonl", "state.pt", DONE, "inputs.json"}  # times, and means to an end


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder of one run; nothing is written before its first stage begins.

    Raises:
        RunError: the path is a file, or a folder that holds something else than a run.
    """

    path: Path

    def __post_init__(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file; expected a run directory")
        entries = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        if "environment.json" not in entries and (runs := seed_runs(self.path)):
            raise RunError(
                f"{self.path}: holds runs of several seeds; expected one of them, such as "
                f"{next(iter(runs.values()))}, or --seeds"
            )
        if entries - {LOCK} and "environment.json" not in entries:
            raise RunError(
                f"{self.path}: holds files but no run; expected an empty or new directory, or a run's"
            )

    def record_config(self, resolved: dict[str, Any], source: str | None) -> None:
        """Keep the pipeline file's text verbatim and the resolved values beside it."""
        write_json(self.path / "config.json", resolved)
        if source is not None:
            (self.path / "config.toml").write_text(source, encoding="utf-8")

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
            outputs = read_record(self.path / stage / DONE)["outputs"]
            _refuse_edits(self.path / stage, {name: outputs[name]})
        return path

    def sha256_of_output(self, stage: str, name: str) -> str | None:
        """The recorded hash of a file that `output` has just checked; None where there is no record."""
        done = self.path / stage / DONE
        return read_record(done)["outputs"][name] if done.exists() else None

    def run_stage(
        self,
        stage: str,
        inputs: Inputs,
        work: Callable[[Path], None],
        progress: Progress,
        force: bool = False,
        derived: bool = False,
        about: About | None = None,
    ) -> Path:
        """Do `work` in the stage's folder, unless it is done with the same inputs; returns the folder.

        Args:
            inputs: what the outputs depend on; the names are shown to the user.
            force: start afresh, whatever was done before.
            derived: the stage is cheap and follows from stages before it: other inputs redo it.
            about: what hashes among the inputs are of. Reported where such an input differs, never compared,
                so that a run which kept other facts, or none, is as good.

        Raises:
            RunError: the stage was done or begun with other inputs, named with old and new value, or an
                output was changed since; `force` starts the stage afresh instead.
        """
        with run_lock(self.path):
            now = json.loads(json.dumps({"inputs": inputs, "about": about or {}}))  # as it will be read back
            return self._run_stage(stage, now, work, progress, force, derived)

    def _run_stage(
        self,
        stage: str,
        now: dict[str, Any],
        work: Callable[[Path], None],
        progress: Progress,
        force: bool,
        derived: bool,
    ) -> Path:
        whole, part = self.path / stage, self.path / f"{stage}.part"
        if force or (derived and self.inputs_of(stage) != now["inputs"]):
            shutil.rmtree(whole, ignore_errors=True)
            shutil.rmtree(part, ignore_errors=True)
        if whole.exists():
            record = read_record(whole / DONE)
            _refuse_changes(self.path, stage, record, now)
            _refuse_edits(whole, record["outputs"])
            progress.note(f"{stage}: done before, skipped")
            return whole
        remove_leftovers(part)
        if _holds_work(part):
            record = read_record(part / "inputs.json")
            _refuse_changes(self.path, stage, record if "inputs" in record else {"inputs": record}, now)
            progress.note(f"{stage}: goes on where it was stopped")
        part.mkdir(parents=True, exist_ok=True)
        if not (self.path / "environment.json").exists():
            from deepmac_distill.devices import environment  # imports torch, which reading a run does without

            write_json(self.path / "environment.json", environment())
        write_json(part / "inputs.json", now)
        started = time.perf_counter()
        work(part)
        (part / "state.pt").unlink(missing_ok=True)
        outputs = {
            str(path.relative_to(part)): sha256_of_file(path)
            for path in sorted(part.rglob("*"))
            if path.is_file() and path.name not in NOT_COMPARED
        }
        record = {
            **now,
            "made_from": _made_from(self.path, stage),
            "outputs": outputs,
            "seconds_since_last_start": round(time.perf_counter() - started, 1),
            "ended": time.strftime(TIME, time.gmtime()),
        }
        write_json(part / DONE, record)
        part.rename(whole)
        (whole / "inputs.json").unlink()
        return whole

    def inputs_of(self, stage: str) -> Inputs | None:
        """What a stage that is done was made with; None where it is not done."""
        path = self.path / stage / DONE
        return read_record(path)["inputs"] if path.exists() else None

    def log_validation_reading(self, stage: str, annotations: Path) -> None:
        """Note that a validation set was read, and by what: nothing may be tuned on it unseen."""
        with (self.path / "validation_readings.jsonl").open("a", encoding="utf-8") as log:
            when = time.strftime(TIME, time.gmtime())
            log.write(json.dumps({"stage": stage, "annotations": str(annotations), "time": when}) + "\n")


def _made_from(run: Path, stage: str) -> dict[str, str]:
    """Digests of the stages before that are done here. Status compares them; a skip never depends on them."""
    reads = STAGES[stage].reads if stage in STAGES else ()
    return {name: digest for name in reads if (digest := outputs_digest(run / name))}


def outputs_digest(folder: Path) -> str | None:
    """One hash for the outputs of a stage; None where it is not done."""
    return sha256_of_json(read_record(folder / DONE)["outputs"]) if (folder / DONE).exists() else None


def _holds_work(part: Path) -> bool:
    """Does a stopped stage hold anything to go on from?"""
    return any(
        path.name not in ("inputs.json", "metrics.jsonl") for path in part.rglob("*") if path.is_file()
    )


def read_record(path: Path) -> dict[str, Any]:
    """What a stage keeps of itself.

    Raises:
        RunError: the file is not there or is broken.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record
    except (FileNotFoundError, json.JSONDecodeError):
        raise RunError(f"{path}: cannot be read; --force redoes the stage") from None


def _refuse_changes(run: Path, stage: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Name an input that differs: before others one of which the cause is known."""
    old, new = before["inputs"], now["inputs"]
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if not changed:
        return
    facts = [record.get("about", {}) for record in (before, now)]
    causes = {name: _differences(*(about.get(name, {}) for about in facts)) for name in changed}
    name = next(filter(causes.get, changed), changed[0])
    made_with = f"{name} = {old.get(name)!r}, now {new.get(name)!r}"
    if causes[name]:
        made_with = f"other {name}: {causes[name]}"
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    raise RunError(
        f"{run}: {stage} was made with {made_with}{more}; "
        "expected the same; --force redoes it, another output directory keeps both"
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In which facts two inputs differ; empty where none is known of both.

    >>> _differences({"file": "a.json", "annotations": 8}, {"file": "a.json", "annotations": 9})
    'annotations (8, now 9)'
    >>> _differences({"data.seen": ["cat", "dog"]}, {"data.seen": ["cat", "owl"]})
    'data.seen (now with owl, without dog)'
    >>> _differences({"file": "a.json", "annotations": 8}, {"file": "a.json", "annotations": 8})
    'content (same file, annotations)'
    """
    known = [fact for fact in now if fact in before]
    differing = [fact for fact in known if before[fact] != now[fact]]
    if known and not differing:
        return f"content (same {', '.join(known)})"
    return ", ".join(f"{fact} ({_difference(before[fact], now[fact])})" for fact in differing)


def _difference(before: Any, now: Any) -> str:
    if not (isinstance(before, list) and isinstance(now, list)):
        return f"{before}, now {now}"
    lists = {
        "with": [name for name in now if name not in before],
        "without": [name for name in before if name not in now],
    }
    changes = [
        f"{word} {', '.join(map(str, names[:3]))}{' ...' if len(names) > 3 else ''}"
        for word, names in lists.items()
        if names
    ]
    return f"now {', '.join(changes) or 'in another order'}"


def _refuse_edits(folder: Path, outputs: dict[str, str]) -> None:
    for name, sha256 in outputs.items():
        path = folder / name
        if not path.exists() or sha256_of_file(path) != sha256:
            state = "was changed" if path.exists() else "is missing"
            raise RunError(
                f"{path}: {state} since the stage was done; expected it untouched; --force redoes it"
            )
