"""Data, runs and shards in buckets of a server that others wrote, by processes that are killed."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as fs
import pytest

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
def server() -> Iterator[str]:
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
        yield f"127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


@pytest.fixture(scope="module")
def store(server: str) -> fs.S3FileSystem:
    made = fs.S3FileSystem(
        access_key="who",
        secret_key="hush",
        region="us-east-1",
        endpoint_override=server,
        scheme="http",
        allow_bucket_creation=True,
    )
    made.create_dir("deepmac-runs")
    return made


@pytest.fixture
def deepmac(server: str, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """A command, begun, on a machine of a name."""

    def begin(*words: object, on: str = "one") -> subprocess.Popen[str]:
        environment = os.environ | {
            "AWS_ENDPOINT_URL": f"http://{server}",
            "AWS_ACCESS_KEY_ID": "who",
            "AWS_SECRET_ACCESS_KEY": "hush",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "DEEPMAC_CACHE": str(tmp_path / on),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "deepmac_distill", *map(str, words)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return begin


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == code, said
    assert "hush" not in said
    return said


def sha256(store: fs.S3FileSystem, name: str) -> str:
    with store.open_input_file(f"deepmac-runs/{name}") as file:
        return hashlib.sha256(file.read()).hexdigest()


def there(store: fs.S3FileSystem, name: str) -> bool:
    return store.get_file_info(f"deepmac-runs/{name}").type == fs.FileType.File


def test_a_killed_machine_and_shards_give_the_bytes_of_one_that_was_not(
    store: fs.S3FileSystem, deepmac: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    recipe, plain = tmp_path / "small.toml", tmp_path / "plain"
    recipe.write_text(RECIPE)
    for command in ("teach", "pseudolabel"):
        ended(deepmac(command, "--config", recipe, "--out", plain))
    run = "s3://deepmac-runs/runs/a"
    begun = deepmac("teach", "--config", recipe, "--out", run)
    until = time.monotonic() + 300
    while not there(store, "runs/a/teacher.part/state.pt") and begun.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    said = begun.communicate()[0]
    assert begun.returncode == -signal.SIGKILL, said  # a training that was done before shows nothing
    said = ended(deepmac("teach", "--config", recipe, "--out", run, on="two"))
    assert "teacher: goes on where it was stopped" in said
    weights = hashlib.sha256((plain / "teacher" / "weights.safetensors").read_bytes()).hexdigest()
    assert sha256(store, "runs/a/teacher/weights.safetensors") == weights
    for index in (2, 0, 1):
        ended(deepmac("pseudolabel", "--out", run, "--shard", f"{index}/3", on=f"node{index}"))
    ended(deepmac("assemble", "--out", run, on="three"))
    assert sha256(store, f"runs/a/{LABELS}") == hashlib.sha256((plain / LABELS).read_bytes()).hexdigest()
    assert "done" in ended(deepmac("status", run, on="four"))


def test_what_is_not_there_is_one_line(
    deepmac: Callable[..., subprocess.Popen[str]], store: fs.S3FileSystem
) -> None:
    for uri, words in (
        ("s3://deepmac-none/a.json", "no such bucket"),
        ("s3://deepmac-runs/none.json", "nothing of use there"),
    ):
        assert words in ended(deepmac("check", uri), code=2).splitlines()[-1]
