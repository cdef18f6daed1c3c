"""Processes that read ahead. What they make comes through shared memory, or where that is small by value.

A worker that finds the shared memory full would hang, and its training with it: Docker gives 64 MB.
"""

from __future__ import annotations

import math
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deepmac_distill.errors import DataError, MachineError, StorageError
from deepmac_distill.stopping import leave_signals_to_the_parent

AHEAD = 2  # what torch's loader has each worker prepare


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that failed. It leaves a worker as a value: raised there, its message would be a traceback."""

    image_id: int
    error: DataError


@dataclass(frozen=True, slots=True)
class Unreachable:
    """What a store or the machine failed with: no fault of an image, so nothing is skipped for it."""

    error: StorageError | MachineError


Collated = TypeVar("Collated")


class Items(Protocol):
    """What can be loaded by key."""

    def __getitem__(self, key: Any, /) -> Any:
        """The item; a DataError where its image cannot be read."""

    def image_id(self, key: Any, /) -> int:
        """Of the image that an item is of."""


class _Guarded(Dataset[Any]):
    def __init__(self, items: Items) -> None:
        self.items = items

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.items[key]
        except DataError as error:
            return Unreadable(self.items.image_id(key), error)
        except (StorageError, MachineError) as error:
            return Unreachable(error)


def loaded(
    items: Items, keys: Iterable[list[Any]], workers: int, collated: Callable[[list[Any]], Collated]
) -> Iterator[tuple[Collated | None, list[Unreadable]]]:
    """For each list of keys the items that can be read, collated, or None; and those that cannot.

    Raises:
        MachineError: the system has ended a worker, or does not let an image be read.
        StorageError: images are in a bucket that does not give them.
    """
    batches = iter(
        DataLoader(
            _Guarded(items),
            batch_sampler=keys,
            num_workers=workers,
            collate_fn=partial(_collate_readable, collated, workers),
            worker_init_fn=_serve,
            generator=torch.Generator(),  # or the loader would draw from the global one and disturb training
        )
    )
    while True:
        try:
            batch = next(batches, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = " ".join(str(error).partition("\n")[0].split())
            raise MachineError(
                f"data.workers: {reason}; expected enough memory for {workers} workers; try fewer, or 0"
            ) from error
        if batch is None:
            return
        found = pickle.loads(batch) if isinstance(batch, bytes) else batch
        if isinstance(found, Unreachable):
            raise type(found.error)(*found.error.args)  # a new one, as in `refuse`
        yield found


def _serve(worker: int) -> None:
    """In a worker: it ends when the training ends, which hears the signals."""
    leave_signals_to_the_parent()


def _collate_readable(
    collated: Callable[[list[Any]], Collated], workers: int, items: list[Any]
) -> tuple[Collated | None, list[Unreadable]] | Unreachable | bytes:
    if failed := [item for item in items if isinstance(item, Unreachable)]:
        return failed[0]
    readable = [item for item in items if not isinstance(item, Unreadable)]
    found = collated(readable) if readable else None, [i for i in items if isinstance(i, Unreadable)]
    needs = 2 * bytes_of(found) * (workers * AHEAD + 1)  # twice: other programs share the memory too
    return pickle.dumps(found) if workers and free_shared_bytes() < needs else found


def bytes_of(value: Any) -> int:
    """Bytes of all tensors in a value made of dataclasses, tuples and lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    if is_dataclass(value):
        return sum(bytes_of(getattr(value, field.name)) for field in fields(value))
    return sum(map(bytes_of, value)) if isinstance(value, tuple | list) else 0


def free_shared_bytes() -> float:
    """What is free of the memory by which tensors pass between processes; without bound where no file system
    holds it.
    """
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return math.inf


def refuse(_image_id: int, error: DataError) -> None:
    """Raise what an image failed with.

    It is raised anew: the error itself is in a frame of its own traceback, a ring that would keep the loader
    and its workers alive, for whose end the program would wait.
    """
    raise type(error)(*error.args)
