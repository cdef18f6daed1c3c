"""Leases: who may work in a run, on one machine and on several, whatever their clocks show."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deepmac_distill import lease
from deepmac_distill.errors import RunError
from deepmac_distill.lease import Beating, Holder, LeaseFile, Patience, read_holder, take_over, this_process
from deepmac_distill.rundir import RunDir
from deepmac_distill.runlock import is_held, run_lock

QUICK = Patience(beat=0.02, stale=0.2)
ELSEWHERE = Holder("far", "another boot", 7, "1", "a token")
HOLDING = """if True:
    import sys, time
    from pathlib import Path
    from deepmac_distill.runlock import run_lock
    with run_lock(Path(sys.argv[1]), sys.argv[2]):
        print("held", flush=True)
        time.sleep(600)
"""


def put(path: Path, holder: Holder) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(holder.line)


def test_a_lease_is_gone_with_its_block_and_leaves_no_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with run_lock(run):
        assert [path.name for path in run.iterdir()] == [".lock"] and is_held(run)
        with pytest.raises(RunError, match=rf"another process works in this run \(process {os.getpid()} on "):
            run_lock(run).__enter__()
    with pytest.raises(KeyboardInterrupt), run_lock(run):
        raise KeyboardInterrupt
    assert list(run.iterdir()) == [] and not is_held(run)


def test_shards_work_beside_each_other_each_once_and_never_beside_the_whole_run(tmp_path: Path) -> None:
    with run_lock(tmp_path, "pseudolabel 0/2"), run_lock(tmp_path, "pseudolabel 1/2"):
        assert is_held(tmp_path)
        with run_lock(tmp_path, "evaluate-teacher-cut-0.5 1/2"):
            pass
        with pytest.raises(RunError, match=r"does shard pseudolabel 1/2; expected each shard once"):
            run_lock(tmp_path, "pseudolabel 1/2").__enter__()
        with pytest.raises(RunError, match=r"does shard pseudolabel 0/2; .*and nothing else beside it"):
            run_lock(tmp_path).__enter__()
    with (
        run_lock(tmp_path),
        pytest.raises(RunError, match="another process works in this run"),
        run_lock(tmp_path, "pseudolabel 0/2"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shard", ["", "pseudolabel 0/2"])
def test_a_process_that_was_killed_keeps_nobody_of_its_machine_waiting(tmp_path: Path, shard: str) -> None:
    command = [sys.executable, "-c", HOLDING, tmp_path, shard]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {holder.pid} on"):
            run_lock(tmp_path, shard).__enter__()
        holder.kill()
        holder.wait()
    began = time.monotonic()
    assert not is_held(tmp_path)
    with run_lock(tmp_path, shard):
        assert time.monotonic() - began < 30  # half of what it takes elsewhere
    assert list(tmp_path.iterdir()) == []


def test_a_process_with_the_number_of_a_dead_one_does_not_pass_for_it(tmp_path: Path) -> None:
    put(tmp_path / ".lock", replace(this_process(), started="1", token="of the dead one"))
    with run_lock(tmp_path):
        assert read_holder(tmp_path / ".lock").token != "of the dead one"


def test_a_holder_elsewhere_is_watched_and_taken_for_dead_when_its_count_stands(tmp_path: Path) -> None:
    put(tmp_path / ".lock", ELSEWHERE)
    notes: list[str] = []
    began = time.monotonic()
    with run_lock(tmp_path, note=notes.append, patience=QUICK):
        assert time.monotonic() - began >= QUICK.stale
    (note,) = notes
    assert note == (
        f"{tmp_path / '.lock'}: process 7 on far holds it, or held it until it died: watching for up to 0.2 s"
    )


def test_a_holder_elsewhere_that_counts_keeps_others_out_whatever_the_clocks_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_machine", lambda: "one")
    holder = replace(this_process(), machine="another")
    put(tmp_path / ".lock", holder)
    beating = Beating(LeaseFile(tmp_path / ".lock"), holder, QUICK)
    back = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(back)))  # an hour back with every look
    for path in (tmp_path / ".lock",):
        os.utime(path, (0, 0))
    try:
        with pytest.raises(RunError, match="another process works in this run"):
            run_lock(tmp_path, patience=QUICK).__enter__()
    finally:
        beating.end()
    assert not (tmp_path / ".lock").exists()


def test_a_process_that_stood_still_and_was_taken_for_dead_ends_before_it_renames_anything(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path / "run")

    def work(folder: Path) -> None:
        (folder / "out.txt").write_text("late")
        put(run.path / ".lock", ELSEWHERE)  # by then somebody else works here

    with pytest.raises(
        RunError, match="took this run over while this one stood still; expected one at a time"
    ):
        run.run_stage("stage", {}, work, _Silent())
    assert not (run.path / "stage").exists()
    assert read_holder(run.path / ".lock") == ELSEWHERE  # whose lease stays


class _Silent:
    def note(self, text: str) -> None: ...


@pytest.mark.parametrize("content", [b"", b"{}", b"[1] 2", b"\xff\xfe", b"{" * 9000])
def test_a_file_that_holds_no_lease_keeps_nobody_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)  # as earlier versions left it
    assert not is_held(tmp_path)
    with run_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_only_one_of_many_takes_over_what_a_dead_one_left(tmp_path: Path) -> None:
    put(tmp_path / ".lock", replace(this_process(), started="1", token="dead"))
    together, held, refused = threading.Barrier(8), [], []

    def try_it() -> None:
        together.wait()
        try:
            with run_lock(tmp_path, patience=QUICK):
                held.append(1)
                time.sleep(0.3)
        except RunError:
            refused.append(1)

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_lease_survives_one_that_comes_late_to_take_over(tmp_path: Path) -> None:
    dead = replace(ELSEWHERE, token="dead")
    put(tmp_path / ".lock", ELSEWHERE)
    take_over(tmp_path / ".lock", dead)
    assert read_holder(tmp_path / ".lock") == ELSEWHERE
    put(tmp_path / ".lock-over-a token", replace(this_process(), started="1"))  # it died while it took over
    take_over(tmp_path / ".lock", ELSEWHERE)
    take_over(tmp_path / ".lock", ELSEWHERE)
    assert list(tmp_path.iterdir()) == []


def _without_links(*given: object, **more: object) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize("links", [True, False])
def test_a_disk_with_links_to_files_or_without_gives_one_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _without_links)
    assert lease.create(tmp_path / ".lock", b"a") and not lease.create(tmp_path / ".lock", b"b")
    assert (tmp_path / ".lock").read_bytes() == b"a"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
