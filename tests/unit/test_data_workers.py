from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from typing import Any

import pytest
import torch

from deepmac_distill.data import workers
from deepmac_distill.data.workers import loaded
from deepmac_distill.errors import DataError, MachineError, StorageError
from deepmac_distill.structures import Instances


class Numbers:
    """Item 3 cannot be read, item 6 opened, the store of item 7 reached; item 5 ends its process."""

    def __getitem__(self, key: int) -> torch.Tensor:
        if key == 3:
            raise DataError("3.png: cannot be decoded")
        if key == 7:
            raise StorageError("s3://bucket/7.png: reading failed")
        if key == 6:
            raise MachineError("6.png: Too many open files")
        if key == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((4, 1000), key)

    def image_id(self, key: int) -> int:
        return key


def collated(items: list[torch.Tensor]) -> tuple[list[torch.Tensor], Instances]:
    return items, Instances.empty(3)


def shared(value: Any) -> bool:
    return all(item.is_shared() for item in value[0])


def test_where_shared_memory_is_small_the_same_comes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, found = [[0, 1], [2, 3], [4]], {}
    for free in (0, 1e12):
        monkeypatch.setattr(workers, "free_shared_bytes", lambda free=free: free)
        found[free] = list(loaded(Numbers(), keys, 2, collated))
        assert [shared(batch) for batch, _ in found[free]] == [bool(free)] * 3
    for (one, unreadable), (other, unreadable_too) in zip(*found.values(), strict=True):
        assert all(map(torch.equal, one[0], other[0])) and len(one[1]) == len(other[1])
        assert [str(u.error) for u in unreadable] == [str(u.error) for u in unreadable_too]
    assert [u.image_id for _, unreadable in found[0] for u in unreadable] == [3]


def test_the_need_of_shared_memory_is_that_of_all_tensors() -> None:
    assert workers.bytes_of((torch.zeros(10), [torch.zeros(2, 3)], "text", None)) == 64
    empty = Instances.empty(3)
    more = Instances(**{f: getattr(empty, f) for f in empty.__dataclass_fields__} | {"boxes": empty.boxes})
    assert workers.bytes_of(more) == workers.bytes_of(empty)


def read_all(read: Any) -> None:
    for _, unreadable in read:
        for failure in unreadable:
            workers.refuse(failure.image_id, failure.error)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize(
    ("item", "kind", "line"),
    [
        (3, DataError, "3.png: cannot be decoded"),
        (6, MachineError, "6.png: Too many open files"),
        (7, StorageError, "s3://bucket/7.png: reading failed"),
    ],
)
def test_what_fails_stops_the_work_and_leaves_no_worker(
    count: int, item: int, kind: type[Exception], line: str
) -> None:
    """A worker that is left keeps the program from ending, since it leaves signals to the parent."""
    gc.disable()
    try:
        with pytest.raises(kind, match=f"^{line}$"):
            read_all(loaded(Numbers(), [[4], [item], [8]], count, collated))
        assert multiprocessing.active_children() == []
    finally:
        gc.enable()


def test_a_worker_that_the_system_ends_is_one_line_that_names_the_key() -> None:
    with pytest.raises(MachineError, match=r"^data\.workers: DataLoader worker .* try fewer, or 0$") as ended:
        list(loaded(Numbers(), [[4], [5]], 1, collated))
    assert "\n" not in str(ended.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_leaves_signals_to_the_training(number: signal.Signals) -> None:
    class Signaled(Numbers):
        def __getitem__(self, key: int) -> torch.Tensor:
            os.kill(os.getpid(), number)
            return super().__getitem__(key)

    assert len(list(loaded(Signaled(), [[0], [1]], 1, collated))) == 2
