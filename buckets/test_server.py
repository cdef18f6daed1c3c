"""Runs and shards in buckets of a server that others wrote, on a weak network; processes are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow.fs as fs
import pytest

from weak_network import Network, weak_network

RECIPE = """
threads = 1
device = "cpu"
[teacher.model]
backbone = "tiny"
backbone_width = 8
head_channels = 8
mask_width = 8
mask_size = 8
mask_head = "hourglass-10"
[teacher.train]
steps = 400
batch_size = 4
image_size_px = 64
checkpoint_every = 20
[labels]
unit_images = 2
[data]
source = "scenes"
seen = ["ellipse", "triangle", "bar", "half disc", "drop", "chevron"]
[data.scenes]
train_images = 12
val_images = 4
size_px = 64
"""
LABELS = "pseudolabel/masks.parquet"


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("moto_server")
    running = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.1)
        yield port
    finally:
        running.terminate()
        running.wait()


@pytest.fixture
def network(server: int) -> Iterator[Network]:
    with weak_network(server) as way:
        yield way


@pytest.fixture(scope="module")
def store(server: int) -> fs.S3FileSystem:
    """A way of the tests' own, on which nothing fails."""
    made = fs.S3FileSystem(
        access_key="who",
        secret_key="hush",
        region="us-east-1",
        endpoint_override=f"127.0.0.1:{server}",
        scheme="http",
        allow_bucket_creation=True,
    )
    made.create_dir("deepmac-runs")
    return made


@pytest.fixture
def python(network: Network, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """A Python process, begun, on a machine of a name."""

    def begin(*words: object, on: str = "one") -> subprocess.Popen[str]:
        environment = os.environ | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{network.port}",
            "AWS_ACCESS_KEY_ID": "who",
            "AWS_SECRET_ACCESS_KEY": "hush",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "DEEPMAC_CACHE": str(tmp_path / on),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, *map(str, words)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return begin


@pytest.fixture
def deepmac(python: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    return lambda *words, on="one": python("-m", "deepmac_distill", *words, on=on)


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == code, said
    assert "hush" not in said
    return said


def in_the_end(begin: Callable[[], subprocess.Popen[str]]) -> str:
    """What a command printed that was started until it ended: a network may fail six times in a row."""
    for _ in range(10):
        process = begin()
        said, _ = process.communicate(timeout=600)
        if process.returncode == 0:
            return said
        assert process.returncode == 2 and "expected a store that answers" in said.splitlines()[-1], said
    raise AssertionError(said)


def content(store: fs.S3FileSystem, name: str) -> bytes:
    with store.open_input_file(f"deepmac-runs/{name}") as file:
        return bytes(file.read())


def there(store: fs.S3FileSystem, name: str) -> bool:
    return store.get_file_info(f"deepmac-runs/{name}").type == fs.FileType.File


def test_a_killed_machine_and_shards_give_the_bytes_of_one_that_was_not(
    store: fs.S3FileSystem,
    network: Network,
    deepmac: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    recipe, plain = tmp_path / "small.toml", tmp_path / "plain"
    recipe.write_text(RECIPE)
    for command in ("teach", "pseudolabel"):
        ended(deepmac(command, "--config", recipe, "--out", plain))
    run, network.breaks = "s3://deepmac-runs/runs/a", True
    begun = deepmac("teach", "--config", recipe, "--out", run)
    until = time.monotonic() + 300
    while not there(store, "runs/a/teacher.part/state.pt") and begun.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    said = begun.communicate()[0]
    assert begun.returncode == -signal.SIGKILL, said  # a training that was done before shows nothing
    said = in_the_end(lambda: deepmac("teach", "--config", recipe, "--out", run, on="two"))
    assert "teacher: goes on where it was stopped" in said
    weights = "teacher/weights.safetensors"
    assert content(store, f"runs/a/{weights}") == (plain / weights).read_bytes()
    for index in ("2/3", "0/3", "1/3"):
        shard = partial(deepmac, "pseudolabel", "--out", run, "--shard", index, on=f"node{index[0]}")
        in_the_end(shard)
    in_the_end(lambda: deepmac("assemble", "--out", run, on="three"))
    assert content(store, f"runs/a/{LABELS}") == (plain / LABELS).read_bytes()
    assert "done" in in_the_end(lambda: deepmac("status", run, on="four"))
    assert min(network.faults[fault] for fault in ("refused", "busy", "cut")) > 2, network.faults


UPLOAD = """
import sys
from pathlib import Path
from deepmac_distill.stopping import signals_raise
from deepmac_distill.storage.location import place_of
from deepmac_distill.storage.store import store_of
with signals_raise():
    place = place_of(sys.argv[2])
    store_of(place).upload(Path(sys.argv[1]), place)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("size", [2**21, 2**25])  # of one request, and of several
def test_an_upload_that_is_killed_leaves_no_part_of_a_file(
    store: fs.S3FileSystem,
    network: Network,
    python: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    size: int,
    number: signal.Signals,
) -> None:
    new = os.urandom(size)
    (tmp_path / "new").write_bytes(new)
    with store.open_output_stream("deepmac-runs/weights") as file:
        file.write(b"old")
    network.bytes_per_s = size / 4
    begun = python("-c", UPLOAD, tmp_path / "new", "s3://deepmac-runs/weights")
    until = time.monotonic() + 60
    while network.sent < size / 2:
        assert begun.poll() is None and time.monotonic() < until, begun.communicate()
        time.sleep(0.01)
    begun.send_signal(number)
    begun.communicate(timeout=60)
    assert begun.returncode == -number if number is signal.SIGKILL else begun.returncode != 0
    time.sleep(1)  # what is on its way arrives
    # A process that is asked to end may end its last request first.
    assert content(store, "weights") in ((b"old",) if number is signal.SIGKILL else (b"old", new))
    network.bytes_per_s = float("inf")
    ended(python("-c", UPLOAD, tmp_path / "new", "s3://deepmac-runs/weights"))
    assert content(store, "weights") == new


SOON = """
import sys
from deepmac_distill.cli import main
from deepmac_distill.storage import failures, store
store.SILENCE_S, store.PATIENT = 1.0, failures.Retries(tries=3)
main(sys.argv[1:])
"""


def test_a_store_that_stops_answering_is_waited_for_no_longer_than_a_while(
    store: fs.S3FileSystem, network: Network, python: Callable[..., subprocess.Popen[str]]
) -> None:
    with store.open_output_stream("deepmac-runs/a.json") as file:
        file.write(b'{"images": [], "categories": [], "annotations": []}')
    network.stands_still = True
    began = time.monotonic()
    said = ended(python("-c", SOON, "check", "s3://deepmac-runs/a.json"), code=2)
    assert "tried 3 times; expected a store that answers" in said.splitlines()[-1]
    assert time.monotonic() - began < 40
    network.stands_still = False
    assert "a.json" in ended(python("-c", SOON, "check", "s3://deepmac-runs/a.json"), code=2)


def test_what_is_not_there_is_one_line(
    deepmac: Callable[..., subprocess.Popen[str]], store: fs.S3FileSystem
) -> None:
    for uri, words in (
        ("s3://deepmac-none/a.json", "no such bucket"),
        ("s3://deepmac-runs/none.json", "nothing of use there"),
    ):
        assert words in ended(deepmac("check", uri), code=2).splitlines()[-1]
