"""Data in buckets and in archives: the same results as from a disk, and one line for what fails."""

from __future__ import annotations

import json
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bucket_server import Buckets, bucket_server, error
from deepmac_distill.data import archives, stored_images
from deepmac_distill.storage import fetching
from deepmac_distill.storage import store as store_module
from deepmac_distill.storage.failures import Retries
from refusals import document


def forget() -> None:
    """What a process remembers of buckets: each command of these tests stands for a process of its own."""
    for remembered in (
        store_module._store,
        fetching._fetched,
        stored_images._listed,
        archives._members,
        archives._entries,
    ):
        remembered.cache_clear()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path) -> Iterator[Buckets]:
    """A bucket with the small data set, below coco/."""
    with bucket_server("bucket") as buckets:
        buckets.reached_by(monkeypatch)
        monkeypatch.setenv("DEEPMAC_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(store_module, "PATIENT", Retries(tries=3, first_wait_s=0.01))
        for path in data.rglob("*"):
            if path.is_file():
                buckets.put("bucket", f"coco/{path.relative_to(data)}", path.read_bytes())
        forget()
        yield buckets
        forget()


def refusal(ended: Any) -> str:
    assert ended.code == 2 and "Traceback" not in ended.err and "hush" not in ended.err, ended.err
    return ended.err.splitlines()[-1].removeprefix("deepmac: ")


def packed(data: Path, folder: Path) -> Path:
    """The images in two archives, in a folder of its own."""
    folder.mkdir(parents=True)
    for number in (0, 1):
        with tarfile.open(folder / f"part-{number}.tar", "w") as tar:
            for path in sorted((data / "images").iterdir())[number::2]:
                tar.add(path, f"./{path.name}")
    return folder


def labels_of(deepmac: Any, run: Path, model: Path, *words: Any) -> bytes:
    forget()
    one = ("--device", "cpu", "--set", "threads=1")
    ended = deepmac("pseudolabel", "--out", run, "--model", model, "--seen", "cat", *one, *words)
    assert ended.code == 0, ended.err
    return (run / "pseudolabel" / "masks.parquet").read_bytes()


def test_labels_have_the_same_bytes_wherever_the_images_are(
    deepmac, chain, held: Buckets, data: Path, tmp_path: Path
) -> None:
    teacher = chain[0] / "teacher" / "weights.safetensors"
    plain = labels_of(
        deepmac,
        tmp_path / "plain",
        teacher,
        "--annotations",
        data / "train.json",
        "--images",
        data / "images",
    )
    root = ("--data", "s3://bucket/coco", "--annotations", "train.json")
    assert labels_of(deepmac, tmp_path / "objects", teacher, *root, "--images", "images") == plain
    folder = packed(data, tmp_path / "packed")
    for path in folder.iterdir():
        held.put("bucket", f"tars/{path.name}", path.read_bytes())
    local = ("--annotations", f"file://{data}/train.json", "--images", folder / "part-*.tar")
    assert labels_of(deepmac, tmp_path / "archives", teacher, *local, "--set", "data.workers=2") == plain
    remote = ("--annotations", "s3://bucket/coco/train.json", "--images", "s3://bucket/tars/part-*.tar")
    assert labels_of(deepmac, tmp_path / "stored", teacher, *remote, "--set", "data.workers=2") == plain


def test_a_teacher_is_trained_from_a_bucket_and_starts_from_weights_there(
    deepmac, held: Buckets, small_toml: Path, tmp_path: Path
) -> None:
    given = (
        "--data",
        "s3://bucket/coco",
        "--annotations",
        "train.json",
        "--images",
        "images",
        "--seen",
        "cat",
    )
    ended = deepmac("teach", "--config", small_toml, "--out", tmp_path / "one", *given)
    assert ended.code == 0, ended.err
    assert "s3://bucket/coco/train.json: 4 images" in ended.err  # not as its copy is called
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["data"]["root"] == "s3://bucket/coco"
    held.put("bucket", "w/weights.safetensors", (tmp_path / "one/teacher/weights.safetensors").read_bytes())
    start = "teacher.train.init_from=s3://bucket/w/weights.safetensors"
    ended = deepmac("teach", "--config", small_toml, "--out", tmp_path / "two", *given, "--set", start)
    assert ended.code == 0, ended.err
    forget()
    again = deepmac("teach", "--out", tmp_path / "two")
    assert again.code == 0 and "teacher: done before, skipped" in again.err
    held.put("bucket", "coco/images/1.png", held.read("bucket", "coco/images/2.png"))
    forget()
    assert "teacher was made with" in refusal(deepmac("teach", "--out", tmp_path / "two"))
    for word in ("s3://bucket/w/weights.safetensors", "s3://bucket/w"):
        said = deepmac(
            "predict",
            tmp_path / "data/images/1.png",
            "--model",
            word,
            "--box",
            "2,2,20,20",
            "--out",
            tmp_path / "p",
        )
        assert said.code == 0, said.err


def test_check_reads_a_bucket_and_names_what_is_missing_there(deepmac, held: Buckets) -> None:
    words = ("check", "s3://bucket/coco/train.json", "--images", "s3://bucket/coco/images", "--seen", "cat")
    assert deepmac(*words).code == 0
    del held.objects["bucket"]["coco/images/3.png"]
    held.put("bucket", "coco/images/2.png", b"no image")
    forget()
    ended = deepmac(*words)
    assert ended.code == 2
    assert "s3://bucket/coco/images/3.png: no such file; expected an image" in ended.out
    assert "s3://bucket/coco/images/2.png: cannot be decoded" in ended.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("s3://bucket/coco/none.json",), "s3://bucket/coco/none.json: nothing of use there"),
        (("s3://nobucket/coco/train.json",), "s3://nobucket/coco/train.json: no such bucket"),
        (("s3:/bucket/coco/train.json",), "s3:/bucket/coco/train.json: is no URI; expected s3://BUCKET/KEY"),
        (("s3://me:hush@bucket/a.json",), "s3://...@...: holds a user or a password"),
        (("http://bucket/a.json",), "http:/bucket/a.json: http is not supported"),
    ],
)
def test_a_place_that_cannot_be_read_is_one_line(
    deepmac, held: Buckets, words: tuple[str, ...], line: str
) -> None:
    assert line in refusal(deepmac("check", *words, "--seen", "cat"))


def test_a_store_that_stops_answering_ends_the_work_in_one_line(
    deepmac, held: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SILENCE_S", 1.0)
    answers = threading.Event()
    held.refuse = lambda method, path: None if answers.wait(20) else (500, b"")
    began = time.monotonic()
    line = refusal(deepmac("check", "s3://bucket/coco/train.json", "--seen", "cat"))
    answers.set()
    assert line.startswith("s3://bucket/coco/train.json: looking it up failed: AWS Error NETWORK_CONNECTION")
    assert line.endswith("expected a store that answers; the same command goes on from what is done")
    assert time.monotonic() - began < 15
    forget()
    assert deepmac("check", "s3://bucket/coco/train.json", "--seen", "cat").code == 0


def test_failures_of_a_bucket_end_the_work_in_one_line_and_are_never_an_unreadable_image(
    deepmac, held: Buckets, tmp_path: Path
) -> None:
    held.refuse = lambda method, path: (503, error("SlowDown")) if path.endswith("/2.png") else None
    words = ("--data", "s3://bucket/coco", "--annotations", "train.json", "--images", "images")
    skip = ("--set", "labels.on_unreadable=skip", "--set", "data.workers=1")
    ended = deepmac(
        "pseudolabel", "--out", tmp_path / "run", "--model", "starter", *words, *skip, "--seen", "cat"
    )
    assert refusal(ended).startswith("s3://bucket/coco/images/2.png: reading failed: ")
    held.refuse = lambda method, path: None
    forget()
    ended = deepmac("pseudolabel", "--out", tmp_path / "run", "--model", "starter")
    assert ended.code == 0, ended.err
    held.refuse = lambda method, path: (403, error("AccessDenied"))
    forget()
    line = refusal(deepmac("check", "s3://bucket/coco/train.json", "--seen", "cat"))
    assert line == (
        "s3://bucket/coco/train.json: no permission (looking it up); expected credentials in the environment "
        "that may do this"
    )


@pytest.mark.parametrize(
    "name", ["s3://other/secret.png", "../secret.png", "/coco/secret.png", "http://169.254.169.254/latest"]
)
def test_a_strangers_file_names_lead_to_nothing_but_its_images(
    deepmac, held: Buckets, tmp_path: Path, name: str
) -> None:
    """Annotations are a stranger's; which images they name is looked up among what the user named."""
    held.objects["other"] = {}
    held.put("other", "secret.png", held.read("bucket", "coco/images/1.png"))
    held.put("bucket", "coco/secret.png", held.read("bucket", "coco/images/1.png"))
    made = document()
    made["images"][0]["file_name"] = name
    held.put("bucket", "coco/train.json", json.dumps(made).encode())
    held.requests.clear()
    words = (
        "--data",
        "s3://bucket/coco",
        "--annotations",
        "train.json",
        "--images",
        "images",
        "--seen",
        "cat",
    )
    ended = deepmac("pseudolabel", "--out", tmp_path / "run", "--model", "starter", *words)
    assert ended.code == 2 and "Traceback" not in ended.err
    assert not any("other" in path or "secret" in path for _, path in held.requests)


def test_what_commands_write_is_on_this_machine(deepmac, held: Buckets, data: Path) -> None:
    words = ("predict", data / "images" / "1.png", "--box", "2,2,20,20", "--out", "s3://bucket/out")
    assert refusal(deepmac(*words)) == (
        "s3://bucket/out: is in a bucket; expected a path of this machine to write to"
    )


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "part-1.tar").write_bytes(b"no archive" * 200), "cannot be read"),
        (lambda folder: cut(folder / "part-1.tar", 700), "cannot be read (empty header)"),
        (
            lambda folder: (folder / "part-2.tar").write_bytes((folder / "part-1.tar").read_bytes()),
            "has it too",
        ),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no archive of that name"),
        (lambda folder: (folder / "part-1.tar").unlink(), "2.png: no such file"),
    ],
)
def test_an_archive_that_cannot_be_used_is_one_line(
    deepmac, data: Path, tmp_path: Path, harm: Any, words: str
) -> None:
    folder = packed(data, tmp_path / "packed")
    harm(folder)
    forget()
    given = ("--annotations", data / "train.json", "--images", folder / "part-*.tar", "--seen", "cat")
    assert words in refusal(deepmac("pseudolabel", "--out", tmp_path / "run", "--model", "starter", *given))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
