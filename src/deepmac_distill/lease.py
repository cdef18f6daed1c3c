"""A file (or an object in a bucket) with who works in it, and a count that grows while its holder lives.

No lock of a file system is used, since many shared ones have none that hold, and no clock is compared with
another: whoever asks watches the count by a clock of its own that only runs forward. A holder on the same
machine is asked of the system instead, so that one that was killed keeps nobody waiting.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from deepmac_distill.errors import StorageError
from deepmac_distill.regular import read_small

NAME = ".lock"  # begins the names of leases, and of what is made to change them


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things take, in seconds, and how they are waited for."""

    beat: float = 5.0  # between two counts of a holder
    stale: float = 60.0  # without a count a holder elsewhere is taken for dead
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic  # of this process; never goes back


PATIENT = Patience()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease, as it is in the file."""

    host: str
    machine: str  # differs wherever a process number means another process
    pid: int
    started: str  # differs between two processes of one number; empty where the system has none
    token: str  # of this lease alone
    beat: int = 0

    @property
    def called(self) -> str:
        """How messages name it."""
        return f"process {self.pid} on {self.host}"

    @property
    def line(self) -> bytes:
        """The whole file; its length does not change with the count."""
        return (json.dumps(asdict(replace(self, beat=0))) + f" {self.beat:012d}\n").encode()


def this_process() -> Holder:
    """A lease of its own for this process."""
    pid = os.getpid()
    return Holder(socket.gethostname(), _machine(), pid, _started(pid), secrets.token_hex(8))


class Kept(Protocol):
    """Where a lease is kept. Each call raises OSError or StorageError where it cannot be done now."""

    @property
    def name(self) -> str:
        """Of the file or the object."""

    def read(self) -> Holder | None:
        """Who holds it; None where nothing is there."""

    def write(self, line: bytes) -> None:
        """Replace what is there."""

    def remove(self) -> None:
        """Remove what is there."""


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """A lease in a file."""

    path: Path

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    def read(self) -> Holder | None:
        """Who holds it; None where there is no file."""
        try:
            return required(read_small(self.path), self.path)
        except FileNotFoundError:
            return None

    def write(self, line: bytes) -> None:
        """Write over a file that is there."""
        file = os.open(self.path, os.O_WRONLY)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink()


def read_holder(path: Path) -> Holder | None:
    """Who holds the lease in a file; None where there is no file, or one that holds no lease."""
    with suppress(OSError):
        return LeaseFile(path).read()
    return None


def required(content: bytes, at: object) -> Holder:
    """The holder that a lease names.

    Raises:
        OSError: it is none: it may be about to be written.
    """
    if (holder := parsed(content.decode(errors="replace"))) is None:
        raise OSError(f"{at}: holds no lease")
    return holder


def parsed(content: str) -> Holder | None:
    """The holder that a lease names; None where it is none."""
    try:
        text, _, beat = content.rstrip("\n").rpartition(" ")
        return replace(Holder(**json.loads(text)), beat=int(beat))
    except (ValueError, TypeError, RecursionError):
        return None


def lives(kept: Kept, holder: Holder, patience: Patience = PATIENT, watch_s: float | None = None) -> bool:
    """Whether the holder that was read from a lease still works; one elsewhere is watched.

    Args:
        watch_s: how long at most; None: until it counts as dead.
    """
    if (here := runs_here(holder)) is not None:
        return here
    since, until = patience.now(), patience.stale if watch_s is None else watch_s
    while patience.now() - since < until:
        patience.sleep(patience.beat / 5)
        with suppress(OSError, StorageError):  # a server that is away is no news of the holder
            now = kept.read()
            if now is None or now.token != holder.token:
                return now is not None
            if now.beat != holder.beat:
                return True
    return False


def runs_here(holder: Holder) -> bool | None:
    """Whether a holder on this machine works; None of one elsewhere, or where the system does not answer."""
    return _is_alive(holder) if holder.machine == _machine() else None


def create(path: Path, content: bytes) -> bool:
    """Make a file with its content in it, whole; returns whether there was none.

    Raises:
        OSError: the folder cannot be written to.
    """
    # A killed writer's is known by its name: as of a lease, or as `files.is_leftover` has them.
    token = secrets.token_hex(8)
    aside = path.with_name(f"{NAME}-{token}" if path.name.startswith(NAME) else f".{path.name}-{token}.part")
    try:
        _create_in_place(aside, content)
        os.link(aside, path)
    except FileExistsError:
        return False
    except (OSError, NotImplementedError):
        # A disk without links to files: others may meet it empty for a moment.
        return _create_in_place(path, content)
    finally:
        aside.unlink(missing_ok=True)
    return True


def take_over(path: Path, dead: Holder | None, patience: Patience = PATIENT) -> None:
    """Remove what a dead holder left; of several who want to, one does, and nobody removes a newer lease."""
    claim = path.with_name(f"{NAME}-over-{dead.token if dead else 'nobody'}")
    if not create(claim, this_process().line):
        other = read_holder(claim)
        if other is None or not lives(LeaseFile(claim), other, patience):
            claim.unlink(missing_ok=True)  # it died in the middle of the lines below
        return
    try:
        now = read_holder(path)
        if (now and now.token) == (dead and dead.token):
            path.unlink(missing_ok=True)
    finally:
        claim.unlink(missing_ok=True)


class Beating:
    """The count of a lease, kept up by a thread until `end`; `lost` once somebody else has the lease."""

    def __init__(self, kept: Kept, holder: Holder, patience: Patience = PATIENT) -> None:
        self.holder, self.lost = holder, False
        self._kept, self._patience, self._ended = kept, patience, threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {kept.name}", daemon=True)
        self._thread.start()

    def held(self) -> bool:
        """Whether the lease is still this one's, as far as it can be read now."""
        with suppress(OSError, StorageError):
            self.lost = self.lost or not self._is_mine()
        return not self.lost

    def end(self) -> None:
        """Stop counting, and remove the lease if it is still this one's."""
        self._ended.set()
        self._thread.join()
        with suppress(OSError, StorageError):
            if self._is_mine():
                self._kept.remove()

    def _is_mine(self) -> bool:
        now = self._kept.read()
        return now is not None and now.token == self.holder.token

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(self._patience.beat):
            beat += 1
            if not self.held():
                return
            with suppress(OSError, StorageError):  # a server that is away; the next count will do
                self._kept.write(replace(self.holder, beat=beat).line)


def _create_in_place(path: Path, content: bytes) -> bool:
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(file, "wb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(file)
    return True


@lru_cache(maxsize=1)
def _machine() -> str:
    """Where process numbers mean the same: a system since its start, and in it a container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process started, in the system's own count; empty where it has none, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # its name, in parentheses, may hold anything
    return "" if state in "ZX" else fields[18]


def _is_alive(holder: Holder) -> bool | None:
    """Whether a process of this machine lives; None where the system does not answer."""
    if Path("/proc/self/stat").exists():
        return _started(holder.pid) == holder.started != ""
    if os.name != "posix":  # where signal 0 is not a question
        return None
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
