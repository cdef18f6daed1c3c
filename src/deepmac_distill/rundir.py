"""A run's folder: what was done with which inputs, so that work is skipped, resumed or refused, never mixed.

A stage works in ``<stage>.part`` and is renamed to ``<stage>`` when it is whole. Beside its outputs lies
``done.json``: its inputs by name, and a hash of every output.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from deepmac_distill.errors import RunError
from deepmac_distill.files import remove_leftovers, sha256_of_file, write_json
from deepmac_distill.progress import Progress

Inputs = Mapping[str, Any]  # name a user knows ("teacher.train.lr", "labels") -> JSON value
NOT_COMPARED = {"metrics.jsonl", "state.pt", "done.json", "inputs.json"}  # times, and means to an end


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
        if entries - {".lock"} and "environment.json" not in entries:
            raise RunError(
                f"{self.path}: holds files but no run; expected an empty or new directory, or a run's"
            )

    def record_config(self, resolved: dict[str, Any], source: str | None) -> None:
        """Keep the pipeline file's text verbatim and the resolved values beside it."""
        write_json(self.path / "config.json", resolved)
        if source is not None:
            (self.path / "config.toml").write_text(source, encoding="utf-8")

    def output(self, stage: str, name: str, command: str) -> Path:
        """A file of a stage that is done; `command` is what does it.

        Raises:
            RunError: the stage is not done.
        """
        path = self.path / stage / name
        if not path.exists():
            raise RunError(
                f"{self.path}: no {stage}/{name}; expected `deepmac {command}` to be done in this run before"
            )
        return path

    def run_stage(
        self,
        stage: str,
        inputs: Inputs,
        work: Callable[[Path], None],
        progress: Progress,
        force: bool = False,
        derived: bool = False,
    ) -> Path:
        """Do `work` in the stage's folder, unless it is done with the same inputs; returns the folder.

        Args:
            inputs: what the outputs depend on; the names are shown to the user.
            force: start afresh, whatever was done before.
            derived: the stage is cheap and follows from stages before it: other inputs redo it.

        Raises:
            RunError: the stage was done or begun with other inputs, named with old and new value, or an
                output was changed since; `force` starts the stage afresh instead.
        """
        with self._held():
            return self._run_stage(stage, inputs, work, progress, force, derived)

    def _run_stage(
        self,
        stage: str,
        inputs: Inputs,
        work: Callable[[Path], None],
        progress: Progress,
        force: bool,
        derived: bool,
    ) -> Path:
        whole, part = self.path / stage, self.path / f"{stage}.part"
        inputs = json.loads(json.dumps(inputs))  # as they will be read back
        if force or (derived and self._inputs_of(stage) != inputs):
            shutil.rmtree(whole, ignore_errors=True)
            shutil.rmtree(part, ignore_errors=True)
        if whole.exists():
            record = _read_record(whole / "done.json")
            _refuse_changes(self.path, stage, record["inputs"], inputs)
            _refuse_edits(whole, record["outputs"])
            progress.note(f"{stage}: done before, skipped")
            return whole
        remove_leftovers(part)
        if _holds_work(part):
            _refuse_changes(self.path, stage, _read_record(part / "inputs.json"), inputs)
            progress.note(f"{stage}: goes on where it was stopped")
        part.mkdir(parents=True, exist_ok=True)
        if not (self.path / "environment.json").exists():
            write_json(self.path / "environment.json", environment())
        write_json(part / "inputs.json", inputs)
        started = time.perf_counter()
        work(part)
        (part / "state.pt").unlink(missing_ok=True)
        outputs = {
            str(path.relative_to(part)): sha256_of_file(path)
            for path in sorted(part.rglob("*"))
            if path.is_file() and path.name not in NOT_COMPARED
        }
        seconds = round(time.perf_counter() - started, 1)
        write_json(
            part / "done.json", {"inputs": inputs, "outputs": outputs, "seconds_since_last_start": seconds}
        )
        part.rename(whole)
        (whole / "inputs.json").unlink()
        return whole

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Nobody else works in this run meanwhile; the system lets go when a process dies.

        Raises:
            RunError: another process works in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.path}: another process works in this run; expected one at a time"
                ) from None
            yield

    def _inputs_of(self, stage: str) -> Inputs | None:
        path = self.path / stage / "done.json"
        return _read_record(path)["inputs"] if path.exists() else None

    def log_validation_reading(self, stage: str, annotations: Path) -> None:
        """Note that a validation set was read, and by what: nothing may be tuned on it unseen."""
        with (self.path / "validation_readings.jsonl").open("a", encoding="utf-8") as log:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            log.write(json.dumps({"stage": stage, "annotations": str(annotations), "time": when}) + "\n")


def environment() -> dict[str, Any]:
    """Versions and hardware, for whoever compares figures."""
    names = ("deepmac-distill", "torch", "torchvision", "numpy", "pyarrow", "pycocotools", "hotcoco", "timm")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: _version(name) for name in names},
    }


def _processor() -> str:
    """The processor's own name where the system tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _holds_work(part: Path) -> bool:
    """Does a stopped stage hold anything to go on from?"""
    return any(
        path.name not in ("inputs.json", "metrics.jsonl") for path in part.rglob("*") if path.is_file()
    )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        raise RunError(f"{path}: cannot be read; --force redoes the stage") from None


def _refuse_changes(run: Path, stage: str, before: Inputs, now: Inputs) -> None:
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if changed:
        name, more = changed[0], f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise RunError(
            f"{run}: {stage} was made with {name} = {before.get(name)!r}, now {now.get(name)!r}{more}; "
            "expected the same; --force redoes it, another output directory keeps both"
        )


def _refuse_edits(folder: Path, outputs: dict[str, str]) -> None:
    for name, sha256 in outputs.items():
        path = folder / name
        if not path.exists() or sha256_of_file(path) != sha256:
            state = "was changed" if path.exists() else "is missing"
            raise RunError(
                f"{path}: {state} since the stage was done; expected it untouched; --force redoes it"
            )
