"""The copy of a run that is worked in, and what of it the bucket has: fetched at first, uploaded after that.

The bucket is the truth. What it had and has no longer is removed here; what was made here and did not get
there is uploaded. A stage is in the bucket when its done.json is, which goes last; a stage that replaces
another loses its done.json first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath

from deepmac_distill.errors import RunError
from deepmac_distill.files import OLD, remove, write_json
from deepmac_distill.lease import NAME as LEASE
from deepmac_distill.regular import read_small
from deepmac_distill.rundir import BEGUN, DONE, STATE
from deepmac_distill.shards import Shard
from deepmac_distill.storage.copies import is_safe
from deepmac_distill.storage.failures import Gone
from deepmac_distill.storage.location import Location
from deepmac_distill.storage.store import Object, Store

_RUN = "environment.json"  # is at the top of every run
_NO_STAGES = ("tensorboard",)  # folders of a run that are never done
_UNIT = re.compile(r"(?:^|/)units/unit-(\d+)\.")


@dataclass(frozen=True, slots=True)
class Known:
    """A file here and its object, when they were the same."""

    size: int
    changed_ns: int  # of the file
    remote_ns: int  # of the object


class Mirror:
    """One run in a bucket and its copy in a folder.

    Args:
        shard: the part of a stage that is done here; others do the rest, and nothing of theirs is touched.
    """

    def __init__(self, store: Store, place: Location, folder: Path, shard: Shard | None = None) -> None:
        self._store, self._place, self.folder, self._shard = store, place, folder, shard
        self._record = folder.with_name(f".{folder.name}.uploaded.json")
        self._known, self._unsure = _read(self._record)  # the latter: names of uploads that may have failed

    def fetch(self) -> None:
        """Make the copy what the bucket has, but for what was made here and did not get there yet.

        That is decided for each folder of a stage as a whole, since its files belong together: where the
        bucket changed since the two were the same, the bucket's counts, else the copy's.

        Raises:
            StorageError: the bucket cannot be read.
        """
        listed = {
            name: found for name, found in self._store.listed(self._place).items() if self._is_wanted(name)
        }
        if _RUN in self._known and not (_RUN in listed and (self.folder / _RUN).exists()):  # removed
            remove(self.folder)
            self._known, self._unsure = {}, set()
        there = {name: found for name, found in listed.items() if not _is_half_uploaded(name, listed)}
        here = dict(self._files())
        stage_of = _Stages({*there, *here, *self._known})
        stages = {stage_of(name) for name in (*listed, *self._known)}
        counts = {stage for stage in stages if self._counts_there(stage, stage_of, listed)}
        for name in sorted(there, key=_order):
            if stage_of(name) in counts and not self._is_unchanged(name, there[name]):
                got = self._store.download(self._place / name, self.folder / name)
                self._known[name] = Known(got.size, got.changed_ns, got.changed_ns)
        for name in {*here, *self._known} - there.keys():
            others_work = self._shard is not None and self._is_begun(stage_of(name), there)
            if stage_of(name) in counts and not others_work:
                remove(self.folder / name)
                self._known.pop(name, None)
        self._unsure = {name for name in self._unsure if stage_of(name) not in counts}
        _remove_empty(self.folder)
        self._keep()

    def _counts_there(self, stage: str, stage_of: _Stages, there: Mapping[str, Object]) -> bool:
        """Whether a stage is as the bucket has it, and not as it is here."""
        now = {name: found.changed_ns for name, found in there.items()}
        then = {name: known.remote_ns for name, known in self._known.items()}
        now, then = (
            {name: at for name, at in some.items() if stage_of(name) == stage and name not in self._unsure}
            for some in (now, then)
        )
        if now != then or self._shard is not None:
            return True
        if (self.folder / stage).exists():
            return False
        return not (stage.endswith(".part") and (self.folder / stage.removesuffix(".part") / DONE).exists())

    def _is_unchanged(self, name: str, found: Object) -> bool:
        known = self._known.get(name)
        same = known is not None and known.remote_ns == found.changed_ns
        return same and _is_same(self.folder / name, known)

    @staticmethod
    def _is_begun(stage: str, there: Mapping[str, Object]) -> bool:
        return any(name.startswith(f"{stage}/") for name in there)

    def upload(self) -> int:
        """Bring to the bucket what it lacks, and remove there what is gone here; returns the files uploaded.

        Raises:
            RunError: another shard was begun with other inputs.
            StorageError: the bucket cannot be written to; what is missing is uploaded the next time.
        """
        here = {name: path for name, path in self._files() if not _is_same(path, self._known.get(name))}
        if here and self._shard is not None:
            self._require_same_inputs(here)
        gone = [name for name in self._known if self._shard is None and not (self.folder / name).exists()]
        if not (here or gone):
            return 0
        opened = {_done_of(name) for name in here} & self._known.keys()
        self._unsure |= {*here, *gone, *opened}
        self._keep()  # before anything is sent, in case of a kill
        for name in sorted(here, key=_order):
            self._open_stage(name, here)
            self._upload(name, here[name])
        for name in gone:
            self._store.remove(self._place / name)
            self._known.pop(name, None)
        self._unsure = set()
        self._keep()
        return len(here)

    def _open_stage(self, name: str, here: Mapping[str, Path]) -> None:
        """A stage that is replaced is not done until all of the new one is there."""
        done = _done_of(name)
        if name != done and done in here and done in self._known:
            self._store.remove(self._place / done)
            del self._known[done]

    def _upload(self, name: str, path: Path) -> None:
        try:
            stat = path.stat()
            sent = self._store.upload(path, self._place / name)
        except FileNotFoundError:  # renamed since
            return
        self._known[name] = Known(stat.st_size, stat.st_mtime_ns, sent.changed_ns)

    def _require_same_inputs(self, here: Mapping[str, Path]) -> None:
        for begun in sorted(self.folder.glob(f"*.part/{BEGUN}")):
            name = str(begun.relative_to(self.folder))
            try:
                theirs = json.loads(self._store.read(self._place / name))
            except Gone:
                continue
            except ValueError:
                theirs = None
            if theirs != json.loads(read_small(begun).decode()):
                raise RunError(
                    f"{self._place / name}: another shard was begun with other inputs; expected one "
                    "configuration for all"
                )

    def _files(self) -> Iterator[tuple[str, Path]]:
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not path.is_symlink() and self._is_wanted(name):
                yield name, path

    def _is_wanted(self, name: str) -> bool:
        parts = PurePosixPath(name).parts
        if not is_safe(name) or any(one.startswith(LEASE) or one.endswith(OLD) for one in parts):
            return False
        if parts[-1].startswith(".") and parts[-1].endswith(".part"):  # a file that is being written
            return False
        unit = _UNIT.search(name)
        if self._shard is not None and unit is not None:
            return int(unit[1]) % self._shard.count == self._shard.index
        return not (self._shard is not None and name.endswith(STATE))

    def _keep(self) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        known = {name: astuple(known) for name, known in self._known.items()}
        write_json(self._record, {"known": known, "unsure": sorted(self._unsure)})


def _done_of(name: str) -> str:
    """The record of the stage in whose folder a file directly is."""
    return f"{name.rpartition('/')[0]}/{DONE}"


def _is_same(path: Path, known: Known | None) -> bool:
    """Whether a file is as it was when its object was the same."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return known is not None and (stat.st_size, stat.st_mtime_ns) == (known.size, known.changed_ns)


class _Stages:
    """The folder of a stage that a file is in, whose files belong together; else the folder it is in.

    >>> of = _Stages({"a/done.json", "a/b/x", "c.part/units/x", "r/environment.json", "top"})
    >>> [of(name) for name in ("a/b/x", "c.part/units/x", "r/environment.json", "top")]
    ['a', 'c.part', 'r', '']
    """

    def __init__(self, names: Collection[str]) -> None:
        self._done = {name.removesuffix(f"/{DONE}") for name in names if name.endswith(f"/{DONE}")}

    def __call__(self, name: str) -> str:
        folders = [folder.as_posix() for folder in PurePosixPath(name).parents][:-1]
        for folder in reversed(folders):
            if folder.endswith(".part") or folder in self._done:
                return folder
        return folders[0] if folders else ""


def _remove_empty(folder: Path) -> None:
    """Remove folders without a file, which would be no stage of a run."""
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def _order(name: str) -> tuple[int, str]:
    """What a stage begins with, its files, the state that goes with them, and last that it is done.

    >>> sorted(["a/done.json", "a.part/state.pt", "a.part/metrics.jsonl", "a.part/inputs.json"], key=_order)
    ['a.part/inputs.json', 'a.part/metrics.jsonl', 'a.part/state.pt', 'a/done.json']
    """
    last = name.rpartition("/")[2]
    return {BEGUN: 0, STATE: 2, DONE: 3}.get(last, 1), name


def _is_half_uploaded(name: str, there: Mapping[str, Object]) -> bool:
    """Whether a file is of a stage that is not done, but for what is kept of one under way.

    >>> here = dict.fromkeys(["a/done.json", "a/x", "b/x", "c.part/x", "top", "r/environment.json", "r/b/x"])
    >>> [one for one in here if _is_half_uploaded(one, here)]
    ['b/x', 'r/b/x']
    """
    folders = [folder.as_posix() for folder in PurePosixPath(name).parents][:-1]
    if not folders or f"{folders[0]}/{_RUN}" in there:
        return False
    return not any(
        f"{folder}/{DONE}" in there or folder.endswith(".part") or folder in _NO_STAGES for folder in folders
    )


def _read(record: Path) -> tuple[dict[str, Known], set[str]]:
    try:
        found = json.loads(read_small(record).decode())
        known = {name: Known(*map(int, values)) for name, values in found["known"].items()}
        return known, set(found["unsure"])
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}, set()
