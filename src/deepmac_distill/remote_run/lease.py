"""Who works in a run that is in a bucket: an object with a count in it, as `lease` has a file.

A bucket has no write here that fails where something is already. So a process writes its lease,
waits, and reads it back: of two that come at once, the one that wrote last has it, and the other ends. One
whose write was on its way for longer than the wait takes the run from its holder, who finds out with its next
count and does not upload anything after that. So two may work for a moment, and one finishes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from deepmac_distill.errors import RunError, StorageError
from deepmac_distill.lease import NAME, Holder, Patience, parsed, runs_here, this_process
from deepmac_distill.storage.failures import Gone
from deepmac_distill.storage.location import Location
from deepmac_distill.storage.store import Store

_OF_SHARD = f"{NAME}.shard "
REMOTE = Patience(beat=15.0, stale=90.0)


class RemoteLease:
    """The lease on a run, or on a shard of it, kept up by a thread until `end`."""

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
        self._store, self._run, self._patience = store, run, patience
        self._place = run / (f"{_OF_SHARD}{shard.replace('/', ' of ')}" if shard else NAME)
        self._holder, self.lost, self._ended = this_process(), False, threading.Event()
        self._refuse_others(note)
        store.put(self._place, self._holder.line)
        patience.sleep(patience.beat / 10)
        if not self.held():
            raise RunError(f"{run}: another process has just begun to work here; expected one at a time")
        try:
            self._refuse_others(note)  # who came in between
        except RunError:
            store.remove(self._place)
            raise
        self._thread = threading.Thread(target=self._beat, name="lease in a bucket", daemon=True)
        self._thread.start()

    def held(self) -> bool:
        """Whether the lease is still this one's; the object is read."""
        now = self._read(self._place)
        self.lost = self.lost or now is None or now.token != self._holder.token
        return not self.lost

    def end(self) -> None:
        """Stop counting, and remove the object if it is still this one's."""
        self._ended.set()
        self._thread.join()
        with suppress(StorageError):
            if self.held():
                self._store.remove(self._place)

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(self._patience.beat):
            beat += 1
            with suppress(StorageError):  # a store that is away for a while; the next count will do
                if not self.held():
                    return
                self._store.put(self._place, replace(self._holder, beat=beat).line)

    def _refuse_others(self, note: Callable[[str], None]) -> None:
        alone = self._place.name == NAME
        for name in self._store.listed(self._run, below=False):
            if not name.startswith(NAME) or (not alone and name not in (NAME, self._place.name)):
                continue
            other = self._read(self._run / name)
            if other is None or other.token == self._holder.token:
                continue
            if self._lives(name, other, note):
                what = "works in this run" if name == NAME else f"does {name.removeprefix(f'{NAME}.')}"
                raise RunError(f"{self._run}: {other.called} {what}; expected one at a time")
            self._store.remove(self._run / name)

    def _lives(self, name: str, holder: Holder, note: Callable[[str], None]) -> bool:
        here = runs_here(holder)
        if here is not None:
            return here
        patience = self._patience
        note(
            f"{self._run}: {holder.called} holds it, or held it until it died: watching for up to "
            f"{patience.stale:g} s"
        )
        since = patience.now()
        while patience.now() - since < patience.stale:
            patience.sleep(patience.beat / 5)
            now = self._read(self._run / name)
            if now is None or now.token != holder.token:
                return now is not None
            if now.beat != holder.beat:
                return True
        return False

    def _read(self, place: Location) -> Holder | None:
        try:
            return parsed(self._store.read(place).decode(errors="replace"))
        except Gone:
            return None
