"""Work in a run that is in a bucket: hold it, fetch it, work here, upload while that goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deepmac_distill.errors import ConfigError, DistillError, RunError, StorageError
from deepmac_distill.lease import Patience
from deepmac_distill.remote_run.lease import REMOTE, RemoteLease
from deepmac_distill.remote_run.mirror import Mirror
from deepmac_distill.shards import Shard
from deepmac_distill.storage.copies import scratch_of
from deepmac_distill.storage.location import Location, place_of
from deepmac_distill.storage.store import store_of

EVERY_SECONDS = 10.0  # between two looks for what is to be uploaded


@contextmanager
def run_in_bucket(
    uri: str | Path,
    shard: Shard | None = None,
    *,
    command: str = "",
    note: Callable[[str], None] = lambda text: None,
    patience: Patience | None = None,
    every_s: float | None = None,
) -> Iterator[Path]:
    """A folder to work in as in any run directory, for a run in a bucket.

    What the run has there is fetched first. Finished stages, saved states and units of labels go up while the
    block lasts, and the rest at its end, however it ends.

    Args:
        uri: s3://BUCKET/KEY of the run.
        shard: the part of a command's units that is done here, beside others.
        command: whose shard it is.
        note: gets a line where something is waited for.
        patience: with other holders; None: `REMOTE`.
        every_s: how often the bucket is brought up to date; None: `EVERY_SECONDS`.

    Raises:
        ConfigError: it is no URI of a bucket.
        RunError: another process works in the run, or took it over.
        StorageError: the bucket cannot be read or written to; what was not uploaded is kept here, and
            uploaded by the next start on this machine.
    """
    place = place_of(uri)
    if not isinstance(place, Location) or not place.key:
        raise ConfigError(f"{uri}: names no run in a bucket; expected s3://BUCKET/KEY")
    store = store_of(place)
    lease = RemoteLease(store, place, f"{command} {shard}" if shard else "", note, patience or REMOTE)
    try:
        mirror = Mirror(store, place, scratch_of(place, str(shard or "")), shard)
        mirror.folder.mkdir(parents=True, exist_ok=True)
        mirror.fetch()
        uploading = _Uploading(mirror, lease, note, every_s or EVERY_SECONDS)
        try:
            yield mirror.folder
        except BaseException:
            try:
                uploading.end()
            except DistillError as failed:
                note(str(failed))
            raise
        uploading.end()
    finally:
        lease.end()


class _Uploading:
    """Uploads by a thread, until `end` uploads the rest."""

    def __init__(
        self, mirror: Mirror, lease: RemoteLease, note: Callable[[str], None], every_s: float
    ) -> None:
        self._mirror, self._lease, self._note, self._every_s = mirror, lease, note, every_s
        self._ended, self._failing = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Upload the rest.

        Raises:
            RunError: another process took the run over, or a shard was begun with other inputs.
            StorageError: the bucket cannot be written to.
        """
        self._ended.set()
        self._thread.join()
        self._require_held()
        try:
            self._mirror.upload()
        except StorageError as failed:
            raise StorageError(
                f"{failed}; what is not there yet is in {self._mirror.folder.parent}"
            ) from failed

    def _work(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                if self._lease.lost:
                    return
                self._mirror.upload()
                self._failing = False
            except StorageError as failed:
                if not self._failing:
                    self._note(f"{failed} (the work goes on)")
                self._failing = True
            except (RunError, OSError):  # `end` meets it again, and reports it
                continue

    def _require_held(self) -> None:
        if not self._lease.held():
            raise RunError(
                "another process took this run over while this one stood still; nothing was uploaded since; "
                "the same command goes on once that one has ended"
            )
