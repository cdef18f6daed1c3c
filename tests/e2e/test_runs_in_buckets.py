"""Run directories in a bucket: the chain, shards without a shared disk, machines that are lost, bad input."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bucket_server import Buckets, bucket_server, error
from deepmac_distill.lease import Patience
from deepmac_distill.remote_run import session
from deepmac_distill.storage import fetching
from deepmac_distill.storage import store as store_module
from deepmac_distill.storage.failures import Retries

RUN = "s3://bucket/runs/a"
LABELS = ("pseudolabel/masks.parquet", "select/instances.json")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Buckets]:
    with bucket_server("bucket") as buckets:
        buckets.reached_by(monkeypatch)
        monkeypatch.setenv("DEEPMAC_SCRATCH", str(tmp_path / "machine-0"))
        monkeypatch.setattr(store_module, "PATIENT", Retries(tries=2, first_wait_s=0.01))
        monkeypatch.setattr(session, "REMOTE", Patience(beat=0.5, stale=2))
        monkeypatch.setattr(session, "EVERY_SECONDS", 0.05)
        forget()
        yield buckets
        forget()


def forget() -> None:
    store_module._store.cache_clear()
    fetching._fetched.cache_clear()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Go on as on another machine, which has nothing yet."""

    def go(name: str) -> None:
        forget()
        monkeypatch.setenv("DEEPMAC_SCRATCH", str(tmp_path / name))

    return go


def refusal(ended: Any) -> str:
    assert ended.code == 2 and "Traceback" not in ended.err and "hush" not in ended.err, ended.err
    return ended.err.splitlines()[-1].removeprefix("deepmac: ")


def put(held: Buckets, run: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file():
            held.put("bucket", f"runs/a/{path.relative_to(run).as_posix()}", path.read_bytes())


def test_the_chain_in_a_bucket_has_the_bytes_of_one_on_a_disk_and_is_done_everywhere(
    chain, held: Buckets, deepmac, scenes_toml: Path, elsewhere
) -> None:
    ended = deepmac("run", scenes_toml, "--out", RUN)
    assert ended.code == 0, ended.err
    assert f"report: {RUN}/report" in ended.out and "machine-0" not in ended.out + ended.err
    for name in (*LABELS, "teacher/weights.safetensors", "student/weights.safetensors"):
        assert held.read("bucket", f"runs/a/{name}") == (chain[0] / name).read_bytes()
    on_disk = {str(path.relative_to(chain[0])) for path in chain[0].rglob("*") if path.is_file()}
    assert {key.removeprefix("runs/a/") for key in held.keys("bucket")} == on_disk
    elsewhere("machine-1")
    written = {key: it for key, it in held.objects["bucket"].items() if key.endswith("done.json")}
    again = deepmac("run", "--config", scenes_toml, "--out", RUN)
    assert again.code == 0 and again.err.count("done before, skipped") >= 7, again.err
    assert {key: held.objects["bucket"][key] for key in written} == written
    forget()
    seen = deepmac("status", RUN)
    assert seen.code == 0 and f"deepmac evaluate student --per-class --out {RUN}" in seen.out, seen.err


def test_shards_of_several_machines_need_no_shared_disk(
    chain, run_copy, held: Buckets, deepmac, elsewhere
) -> None:
    put(held, run_copy("pseudolabel", "select", "student", "evaluate-*", "report"))
    for index in (2, 0):
        elsewhere(f"machine-{index}")
        ended = deepmac("pseudolabel", "--out", RUN, "--shard", f"{index}/3")
        assert ended.code == 0, ended.err
    elsewhere("machine-9")
    assert "2 of 6 units are missing (1, 4): shard 1/3" in refusal(deepmac("assemble", "--out", RUN))
    other = ("--set", "labels.soft=false")
    line = refusal(deepmac("pseudolabel", "--out", RUN, "--shard", "1/3", *other))
    assert f"{RUN}: pseudolabel was made with labels.soft" in line
    shutil.rmtree(Path(session.scratch_of(session.place_of(RUN), "1/3")), ignore_errors=True)
    assert deepmac("pseudolabel", "--out", RUN, "--shard", "1/3").code == 0
    ended = deepmac("assemble", "--out", RUN)
    assert ended.code == 0, ended.err
    for name in LABELS:
        assert held.read("bucket", f"runs/a/{name}") == (chain[0] / name).read_bytes()
    assert not [key for key in held.keys("bucket") if ".part/" in key or ".lock" in key]


def test_a_training_that_was_stopped_goes_on_on_another_machine(
    held: Buckets, deepmac, elsewhere, scenes_toml: Path, tmp_path: Path
) -> None:
    words = ("teach", "--config", scenes_toml, "--steps", "60")
    assert deepmac(*words, "--out", tmp_path / "plain").code == 0
    signals = [signal.SIGTERM]

    def stop(method: str, path: str) -> None:
        """Once a state is on its way to the bucket, the machine is to be given back."""
        if method == "PUT" and path.endswith("state.pt") and signals:
            os.kill(os.getpid(), signals.pop())

    held.refuse = stop  # type: ignore[assignment]
    ended = deepmac(*words, "--out", RUN)
    assert ended.code == 143 and "stopped" in ended.err, ended.err
    assert "runs/a/teacher.part/state.pt" in held.keys("bucket")
    elsewhere("machine-1")
    ended = deepmac(*words, "--out", RUN)
    assert ended.code == 0 and "teacher: goes on where it was stopped" in ended.err, ended.err
    plain = (tmp_path / "plain" / "teacher" / "weights.safetensors").read_bytes()
    assert held.read("bucket", "runs/a/teacher/weights.safetensors") == plain


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ((403, error("AccessDenied")), "no permission"),
        ((503, error("SlowDown")), "failed: AWS Error SLOW_DOWN"),
        ((301, error("PermanentRedirect")), "the bucket is in another region"),
    ],
)
def test_a_bucket_that_fails_is_one_line_before_any_work_and_the_next_start_goes_on(
    held: Buckets, deepmac, scenes_toml: Path, answer: Any, line: str
) -> None:
    held.refuse = lambda method, path: answer
    said = refusal(deepmac("teach", "--config", scenes_toml, "--out", RUN))
    assert said.startswith(f"{RUN}") and line in said
    held.refuse = lambda method, path: None
    assert "no such bucket" in refusal(deepmac("teach", "--config", scenes_toml, "--out", "s3://none/a"))
    assert "is no URI" in refusal(deepmac("teach", "--config", scenes_toml, "--out", "s3:/bucket/a"))


def test_what_did_not_get_there_is_kept_and_goes_up_at_the_next_start(
    held: Buckets, deepmac, scenes_toml: Path
) -> None:
    held.refuse = lambda method, path: (
        (403, error("AccessDenied")) if method == "PUT" and "/teacher" in path else None
    )
    ended = deepmac("teach", "--config", scenes_toml, "--out", RUN)
    assert "no permission" in refusal(ended) and "what is not there yet is in " in ended.err
    assert "runs/a/teacher/done.json" not in held.keys("bucket")
    held.refuse = lambda method, path: None
    forget()
    again = deepmac("teach", "--config", scenes_toml, "--out", RUN)
    assert again.code == 0 and "teacher: done before, skipped" in again.err, again.err
    assert "runs/a/teacher/done.json" in held.keys("bucket")
