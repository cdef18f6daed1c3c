"""Who works in a run that is in a bucket: an object with a count in it, as `lease` has a file.

A bucket has no write here that fails where something is already. So a process writes its lease,
waits, and reads it back: of two that come at once, the one that wrote last has it, and the other ends. One
whose write was on its way for longer than the wait takes the run from its holder, who finds out with its next
count and does not upload anything after that. So two may work for a moment, and one finishes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from deepmac_distill.errors import RunError
from deepmac_distill.lease import (
    NAME,
    Beating,
    Holder,
    Patience,
    lives,
    required,
    runs_here,
    this_process,
)
from deepmac_distill.storage.failures import Gone
from deepmac_distill.storage.location import Location
from deepmac_distill.storage.store import Store

_OF_SHARD = f"{NAME}.shard "
REMOTE = Patience(beat=15.0, stale=90.0)


@dataclass(frozen=True, slots=True)
class LeaseObject:
    """A lease in an object of a bucket."""

    store: Store
    place: Location

    @property
    def name(self) -> str:
        """Of the object."""
        return self.place.name

    def read(self) -> Holder | None:
        """Who holds it; None where there is no object."""
        try:
            return required(self.store.read(self.place), self.place)
        except Gone:
            return None

    def write(self, line: bytes) -> None:
        """Put an object in its place."""
        self.store.put(self.place, line)

    def remove(self) -> None:
        """Remove the object."""
        self.store.remove(self.place)


class RemoteLease(Beating):
    """The lease on a run, or on a shard of it, kept up until `end`."""

    def __init__(
        self,
        store: Store,
        run: Location,
        shard: str = "",
        note: Callable[[str], None] = lambda text: None,
        patience: Patience = REMOTE,
    ) -> None:
        """
        Args:
            shard: such as "pseudolabel 2/7"; empty: the run alone.

        Raises:
            RunError: another process has it, or works where this one would.
            StorageError: the bucket cannot be read or written to.
        """
        name = f"{_OF_SHARD}{shard.replace('/', ' of ')}" if shard else NAME
        kept, mine = LeaseObject(store, run / name), this_process()
        _refuse_others(kept, run, mine, note, patience)
        kept.write(mine.line)
        patience.sleep(patience.beat / 10)
        now = _read(kept)
        if now is None or now.token != mine.token:
            raise RunError(f"{run}: another process has just begun to work here; expected one at a time")
        try:
            _refuse_others(kept, run, mine, note, patience)  # who came in between
        except RunError:
            kept.remove()
            raise
        super().__init__(kept, mine, patience)


def _refuse_others(
    kept: LeaseObject, run: Location, mine: Holder, note: Callable[[str], None], patience: Patience
) -> None:
    """Remove what the dead have left; raise RunError where one lives who may not work beside `mine`."""
    for name in kept.store.listed(run, below=False):
        if not name.startswith(NAME) or (kept.name != NAME and name not in (NAME, kept.name)):
            continue
        theirs = LeaseObject(kept.store, run / name)
        other = _read(theirs)
        if other is None or other.token == mine.token:
            continue
        if runs_here(other) is None:
            note(
                f"{run}: {other.called} holds it, or held it until it died: watching for up to "
                f"{patience.stale:g} s"
            )
        if lives(theirs, other, patience):
            what = "works in this run" if name == NAME else f"does {name.removeprefix(f'{NAME}.')}"
            raise RunError(f"{run}: {other.called} {what}; expected one at a time")
        theirs.remove()


def _read(kept: LeaseObject) -> Holder | None:
    """Who holds it; None also where an object holds no lease."""
    with suppress(OSError):
        return kept.read()
    return None
