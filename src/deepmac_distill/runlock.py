"""Who may work in a run: one process, or several that each do a shard of one stage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deepmac_distill.errors import RunError
from deepmac_distill.lease import (
    NAME,
    PATIENT,
    Beating,
    Holder,
    LeaseFile,
    Patience,
    create,
    lives,
    read_holder,
    take_over,
    this_process,
)

_OF_SHARD = f"{NAME}.shard "
_TRIES = 20  # each ends because somebody else was faster
_ASKED_SECONDS = 11.0  # two beats: whoever only asks does not wait until a holder counts as dead


class Held:
    """A lease on a run, while its block lasts."""

    def __init__(self, run: Path, beating: Beating) -> None:
        self._run, self._beating = run, beating

    def require(self) -> None:
        """Go on only while nobody else has taken the run, as they do from a process that stood still.

        Raises:
            RunError: somebody has.
        """
        if not self._beating.held():
            raise RunError(
                f"{self._run}: another process took this run over while this one stood still; expected "
                "one at a time; the same command goes on once that one has ended"
            )


@contextmanager
def run_lock(
    run: Path, shard: str = "", note: Callable[[str], None] = lambda text: None, patience: Patience = PATIENT
) -> Iterator[Held]:
    """Hold a run, whose folder is made where it is missing, alone or for one shard beside others.

    Args:
        run: its folder. On a disk that several machines share, they keep each other out.
        shard: which part of which stage, such as "pseudolabel 2/7"; empty: the run alone.
        note: gets a line where a holder on another machine has to be watched.

    Raises:
        RunError: another process works in it, or does the same shard; or the lease is a link, which is not
            followed.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / _lease_name(shard)
    beating = _acquired(path, shard, note, patience)
    try:
        for other in _others(run, shard):
            _refuse_link(other)
            holder = read_holder(other)
            if holder is not None and _lives(other, holder, note, patience):
                raise RunError(_refusal(run, _shard_of(other.name), holder))
            take_over(other, holder, patience)
        yield Held(run, beating)
    finally:
        beating.end()


def is_held(run: Path) -> bool:
    """Whether a process works in the run now; nothing is written."""
    return any(
        not path.is_symlink()
        and (holder := read_holder(path)) is not None
        and lives(LeaseFile(path), holder, watch_s=_ASKED_SECONDS)
        for path in _leases(run)
    )


def is_lease(name: str) -> bool:
    """Whether a file of a run is only about who works in it."""
    return name.startswith(NAME)


def _acquired(path: Path, shard: str, note: Callable[[str], None], patience: Patience) -> Beating:
    holder = None
    for _ in range(_TRIES):
        _refuse_link(path)
        mine = this_process()
        if create(path, mine.line):
            return Beating(LeaseFile(path), mine, patience)
        if (holder := read_holder(path)) is None:  # somebody may be about to write it
            patience.sleep(patience.beat / 100)
            holder = read_holder(path)
        if holder is not None and _lives(path, holder, note, patience):
            raise RunError(_refusal(path.parent, shard, holder))
        take_over(path, holder, patience)
        patience.sleep(patience.beat / 100)
    raise RunError(_refusal(path.parent, shard, holder or this_process()))


def _lives(path: Path, holder: Holder, note: Callable[[str], None], patience: Patience) -> bool:
    if holder.machine != this_process().machine:
        note(
            f"{path}: {holder.called} holds it, or held it until it died: watching for up to "
            f"{patience.stale:g} s"
        )
    return lives(LeaseFile(path), holder, patience)


def _refusal(run: Path, shard: str, holder: Holder) -> str:
    if not shard:
        return f"{run}: another process works in this run ({holder.called}); expected one at a time"
    return f"{run}: {holder.called} does shard {shard}; expected each shard once, and nothing else beside it"


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise RunError(f"{path}: is a link; expected a file that this run made, or none")


def _leases(run: Path) -> list[Path]:
    """The lease on the run, and those on shards."""
    return [path for path in (run / NAME, *sorted(run.glob(f"{_OF_SHARD}*"))) if os.path.lexists(path)]


def _others(run: Path, shard: str) -> list[Path]:
    """Leases that may not be held beside this one: shards may, beside each other."""
    return [path for path in _leases(run) if (path.name == NAME) == bool(shard)]


def _lease_name(shard: str) -> str:
    return f"{_OF_SHARD}{shard.replace('/', ' of ')}" if shard else NAME


def _shard_of(name: str) -> str:
    """
    >>> _shard_of(_lease_name("evaluate-teacher-cut-0.5 2/7")), _shard_of(NAME)
    ('evaluate-teacher-cut-0.5 2/7', '')
    """
    return name.removeprefix(_OF_SHARD).replace(" of ", "/") if name != NAME else ""
