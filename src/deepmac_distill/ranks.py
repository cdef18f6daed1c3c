"""The processes that train one model together: what they exchange. One process alone is the ordinary case.

gloo carries what is in the memory of the CPU, NCCL what is in a GPU's. Every sum has the same bits in all
processes, so that their weights stay equal.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from deepmac_distill.errors import MachineError
from deepmac_distill.torchrun import ALONE, Place

MEETING = timedelta(minutes=5)  # until all processes have come together
PATIENCE = timedelta(days=1)  # the first process reads and labels while the others wait
_ENDED, _WHY = "ended", "why"  # keys of the store
_FIRST, _HEARD = "first", "heard"
_LOOK_SECONDS = 0.05  # between two looks into the store


class RankLost(MachineError):
    """Another process has ended, or cannot be reached."""


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train together.

    All of them call the same methods in the same order.

    Attributes:
        place: which of them this is.
        store: where one that fails leaves word for the others; None where there are none.
    """

    place: Place = ALONE
    store: Store | None = None

    @property
    def rank(self) -> int:
        """Its number, from 0."""
        return self.place.rank

    @property
    def world(self) -> int:
        """How many there are."""
        return self.place.world

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes, and reports."""
        return self.place.rank == 0

    def add(self, tensor: Tensor) -> None:
        """Turn a tensor, in place, into the sum over all processes."""
        if self.world > 1:
            with _heard():
                dist.all_reduce(tensor)

    def gather(self, tensor: Tensor) -> Tensor:
        """(world, ...): a tensor of every process, all of one shape, in the order of their ranks."""
        if self.world == 1:
            return tensor[None]
        every = [torch.empty_like(tensor) for _ in range(self.world)]
        with _heard():
            dist.all_gather(every, tensor)
        return torch.stack(every)

    def send(self, tensor: Tensor) -> None:
        """Overwrite a tensor with that of the first process."""
        if self.world > 1:
            with _heard():
                dist.broadcast(tensor, src=0)

    def announce(self, value: Any = None) -> Any:
        """What the first process was given here, in all of them; whoever comes early waits."""
        if self.world == 1:
            return value
        values = [value]
        with _heard():
            dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def wait(self) -> None:
        """Return when all processes are here."""
        self.gather(torch.zeros(1))

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Let the first process through, then the others: it fills caches that all of them read."""
        if not self.leads:
            self.announce()
        yield
        if self.leads:
            self.announce()

    def share_of(self, whole: int) -> slice:
        """Which part of a list of so many, a multiple of the processes, belongs to this one."""
        part = whole // self.world
        return slice(self.rank * part, (self.rank + 1) * part)

    def ends_first(self, word: str) -> bool:
        """Leave word that this process ends; returns whether no other has before."""
        if self.store is None:
            return True
        with suppress(RuntimeError):  # whoever kept the store is gone, so another has ended
            if self.store.add(_ENDED, 1) == 1:
                self.store.set(_WHY, word)
                return True
        return False

    def leave(self) -> None:
        """End what joined the processes."""
        if self.world > 1 and dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        """A connection is not copied with the model that uses it."""
        return self


ONE = Ranks()


def join(place: Place, device: torch.device, meeting: timedelta = MEETING) -> Ranks:
    """Meet the other processes of a place, at the address that torchrun has set.

    Args:
        device: where this one computes; each process has a GPU of its own.
        meeting: how long the others may take to come.

    Raises:
        RankLost: they did not come.
    """
    if place.world == 1:
        return ONE
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        found, rank, world = next(rendezvous("env://", place.rank, place.world, timeout=meeting))
        store = PrefixStore(f"deepmac-{common_word(found, rank, world, meeting)}", found)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=world,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankLost(
            f"{where}: rank {place.rank} did not meet all {place.world} processes in "
            f"{meeting.total_seconds():g} s ({_short(error)}); expected every rank to start with this address"
        ) from error
    return Ranks(place, PrefixStore("ends", store))


def common_word(store: Store, rank: int, world: int, meeting: timedelta) -> str:
    """A word that all processes which meet now have in common, and that none had before.

    torchrun keeps one store for all its attempts, so what the last one left there would pass for this one's.
    Its agents on several machines count restarts apart, which numbers no attempt. Hence the first
    process names itself, each other one answers with a word of its own, and believes the name once that word
    is among those which the first one has heard.

    Raises:
        RuntimeError: not all have come.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set(_FIRST, mine)
        answers = [f"{mine} {other}" for other in range(1, world)]
        store.wait(answers, meeting)
        store.set(f"{mine} {_HEARD}", " ".join(store.get(answer).decode() for answer in answers))
        return mine
    until = time.monotonic() + meeting.total_seconds()
    while time.monotonic() < until:
        if store.check([_FIRST]):
            first = store.get(_FIRST).decode()
            store.set(f"{first} {rank}", mine)
            heard = f"{first} {_HEARD}"
            if store.check([heard]) and mine.encode() in store.get(heard).split():
                return first
        time.sleep(_LOOK_SECONDS)
    raise RuntimeError("the first process did not answer")


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo and NCCL: they have no class in common but this
        raise RankLost(
            f"another process of this training is gone ({_short(error)}); expected all of them; the same "
            "command goes on"
        ) from error


def _short(error: BaseException) -> str:
    """The words of an error without the places in torch's sources that it begins with."""
    words = str(error).partition("\n")[0].rpartition("] ")[2].strip()
    return words[:120] or type(error).__name__
