"""Processes that train together: the numbers they agree on, and what is refused before they meet."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torch.distributed import HashStore

import ranks as benchmark
from deepmac_distill.config import Pipeline
from deepmac_distill.devices import pick_device
from deepmac_distill.errors import ConfigError
from deepmac_distill.models.blocks import BatchNorm
from deepmac_distill.models.synchronized import SynchronizedBatchNorm, synchronize
from deepmac_distill.ranks import ONE, RankLost, Ranks, common_word, join
from deepmac_distill.stages.preflight import require_compilable, require_even_parts
from deepmac_distill.torchrun import Place, place_of

TWO = Place(0, 2, 0)
ADDRESS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_two_processes_train_as_one_does() -> None:
    """Batches without a mask in one process, in none and in both, and of windows are among the steps."""
    found = benchmark.differences()
    for name, way in benchmark.WAYS.items():
        if way.double:
            assert found[name].weight < 1e-8 and found[name].gradient < 1e-10, (name, found[name])
        else:
            print(f"largest difference of the weights in float32: {found[name].weight:.1e}")
            assert found[name].gradient < 1e-5 and found[name].loss < 1e-3, (name, found[name])


def norms() -> dict[str, nn.BatchNorm2d]:
    return {
        "torch": nn.BatchNorm2d(3),
        "without weights": nn.BatchNorm2d(3, affine=False),
        "ours": BatchNorm(3),
        "timm": timm.layers.BatchNormAct2d(3),
    }


@pytest.mark.parametrize("kind", norms())
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 5)])
def test_a_synchronized_batch_norm_of_one_process_is_the_norm_itself(
    kind: str, shape: tuple[int, ...]
) -> None:
    """Its output, its running statistics and all gradients; ours has few values in the second shape."""
    torch.manual_seed(0)
    norm, twin = (norms()[kind].double() for _ in range(2))
    for some in (norm, twin):
        for number, parameter in enumerate(some.parameters()):
            nn.init.constant_(parameter, 0.5 + number)
    ours = SynchronizedBatchNorm(twin, ONE)
    assert list(ours.state_dict()) == list(norm.state_dict())
    given = [torch.randn(shape, dtype=torch.float64).requires_grad_() for _ in range(1)] * 2
    results = []
    for some, x in zip((norm, ours), given, strict=True):
        x.grad = None
        out = some(x)
        out.square().sum().backward()
        results.append([out, x.grad, *(p.grad for p in some.parameters()), *some.buffers()])
    for theirs, mine in zip(*results, strict=True):
        assert torch.allclose(theirs.double(), mine.double(), rtol=1e-12, atol=1e-12)
    x = given[0].detach()
    assert torch.allclose(norm.eval()(x), ours.eval()(x), rtol=1e-12, atol=1e-12)


def test_every_batch_norm_of_a_model_is_synchronized_and_no_tensor_is_renamed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(BatchNorm(4), timm.layers.BatchNormAct2d(4)))
    names, parameters = list(model.state_dict()), list(map(id, model.parameters()))
    synchronize(model, ONE)
    assert not any(isinstance(part, SynchronizedBatchNorm) for part in model.modules())
    synchronize(model, Ranks(TWO))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert list(model.state_dict()) == names and list(map(id, model.parameters())) == parameters


def test_parts_of_a_batch_are_the_batch() -> None:
    parts = [Ranks(Place(rank, 3, rank)).share_of(12) for rank in range(3)]
    assert [number for part in parts for number in range(12)[part]] == list(range(12))


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"MASTER_ADDR": ""}, "MASTER_ADDR: is not set beside WORLD_SIZE"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: got 'two', expected a number, 1 or more"),
        ({"RANK": "2"}, "RANK: got '2', expected a number, 0 to 1"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK: got '-1', expected a number, 0 to 1"),
    ],
)
def test_variables_that_torchrun_would_not_set_are_refused(changed: dict[str, str], refused: str) -> None:
    with pytest.raises(ConfigError) as error:
        place_of({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **ADDRESS, **changed})
    assert refused in str(error.value)


def test_a_rank_that_does_not_come_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    with pytest.raises(RankLost, match="rank 0 did not meet all 2 processes in 1 s") as error:
        join(TWO, torch.device("cpu"), meeting=timedelta(seconds=1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("last", [0, 2])
def test_what_an_earlier_attempt_left_in_the_store_passes_for_nothing(last: int) -> None:
    """Whoever starts late, the first process or another one."""
    store, words = HashStore(), []

    def meets(rank: int) -> str:
        time.sleep(0.2 * (rank == last))
        return common_word(store, rank, 3, timedelta(seconds=20))

    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            (word,) = set(pool.map(meets, range(3)))
        words.append(word)
    assert len(set(words)) == 3


def test_one_that_meets_only_what_an_earlier_attempt_left_does_not_go_on() -> None:
    store = HashStore()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rank: common_word(store, rank, 2, timedelta(seconds=20)), range(2)))
    with pytest.raises(RuntimeError, match="the first process did not answer"):
        common_word(store, 1, 2, timedelta(seconds=0.3))


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    job = SimpleNamespace(pipeline=Pipeline(), ranks=Ranks(Place(0, 3, 0)))
    with pytest.raises(ConfigError) as error:
        require_even_parts(job, "teacher")
    assert str(error.value).startswith(
        "teacher.train.batch_size: got 8 for 3 processes, expected a multiple of 3"
    )
    require_even_parts(SimpleNamespace(pipeline=Pipeline(), ranks=Ranks(TWO)), "teacher")


def test_several_processes_compile_nothing() -> None:
    pipeline = Pipeline()
    compiling = replace(pipeline.teacher, train=replace(pipeline.teacher.train, compile=True))
    job = SimpleNamespace(pipeline=replace(pipeline, teacher=compiling), ranks=Ranks(TWO))
    with pytest.raises(ConfigError, match="got true for 2 processes, expected one"):
        require_compilable(job, "teacher")


@pytest.mark.parametrize("name", ["cuda:0", "mps"])
def test_one_device_for_several_processes_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device: got {name} for 2 processes, expected auto, cpu or cuda"):
        pick_device(name, TWO)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0", **ADDRESS}, "deepmac: check: got 2 processes, expected one;"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, "deepmac: MASTER_ADDR: is not set beside WORLD_SIZE;"),
    ],
)
def test_a_command_that_several_processes_cannot_do_is_refused(
    deepmac: Callable[..., object], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], line: str
) -> None:
    for name, value in {"WORLD_SIZE": "2", **environment}.items():
        monkeypatch.setenv(name, value)
    ended = deepmac("check", "nothing.json")
    assert ended.code == 2 and ended.err.startswith(line) and ended.err.count("\n") == 1
