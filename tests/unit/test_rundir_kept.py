"""Nothing finished is lost, and nothing is written through what somebody else has put into a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill import files
from deepmac_distill.errors import RunError
from deepmac_distill.progress import Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.runlock import is_held


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class Killed(BaseException):
    pass


def writes(text: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        (folder / "out.txt").write_text(text)
        (folder / "state.pt").write_text("to go on from")

    return work


def refuse_to_work(folder: Path) -> None:
    raise AssertionError("this work was done before")


def begins(error: type[BaseException]) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        (folder / "state.pt").write_text("half")
        raise error

    return work


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def do(run: RunDir, work: Callable[[Path], None], inputs: dict[str, Any] | None = None, **more: Any) -> Path:
    return run.run_stage("stage", inputs or {}, work, more.pop("progress", Silent()), **more)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, Killed])
@pytest.mark.parametrize("how", [{"force": True}, {"derived": True}])
def test_the_old_stage_stays_until_the_new_one_is_whole(
    run: RunDir, error: type[BaseException], how: dict[str, bool]
) -> None:
    before = content(do(run, writes("old"), {"lr": 1}))
    with pytest.raises(error):
        do(run, begins(error), {"lr": 2}, **how)
    assert content(run.path / "stage") == before
    do(run, refuse_to_work, {"lr": 1})
    assert (do(run, writes("new"), {"lr": 2}, **how) / "out.txt").read_text() == "new"
    assert {path.name for path in run.path.iterdir()} == {"stage", "environment.json"}


def test_a_forced_stage_that_was_stopped_goes_on_without_force(run: RunDir) -> None:
    do(run, writes("old"))
    with pytest.raises(KeyboardInterrupt):
        do(run, begins(KeyboardInterrupt), force=True)
    notes = Notes()

    def goes_on(folder: Path) -> None:
        assert (folder / "state.pt").read_text() == "half"
        (folder / "out.txt").write_text("new")

    assert (do(run, goes_on, progress=notes) / "out.txt").read_text() == "new"
    assert notes.lines == ["stage: goes on where it was stopped"]


@pytest.mark.parametrize(("old", "at"), [(False, 0), (False, 1), (True, 0), (True, 1), (True, 2), (True, 3)])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_rename_or_removal_loses_nothing_and_does_nothing_twice(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, old: bool, at: int, after: bool
) -> None:
    if old:
        do(run, writes("old"))
    calls = 0

    def killing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at + 1 and not after:
                raise Killed
            found = real(path, *more)
            if calls == at + 1:
                raise Killed
            return found

        return call

    def work(folder: Path) -> None:
        writes("new")(folder)
        patched.setattr(Path, "rename", killing(Path.rename))
        patched.setattr(files, "remove", killing(files.remove))

    with monkeypatch.context() as patched, pytest.raises(Killed):
        do(run, work, force=True)
    folder = do(run, refuse_to_work)
    assert content(folder)["out.txt"] == b"new" and set(content(folder)) == {"out.txt", "done.json"}
    assert {path.name for path in run.path.iterdir()} == {"stage", "environment.json"}


def test_a_kill_while_old_work_is_thrown_away_stops_no_later_start(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(run, begins(KeyboardInterrupt))

    def half(path: Path) -> None:
        if path.exists():
            (path / "inputs.json").unlink()
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("deepmac_distill.files.shutil.rmtree", half)
        with pytest.raises(Killed):
            do(run, writes("new"), force=True)
    assert content(do(run, writes("new")))["out.txt"] == b"new"
    assert {path.name for path in run.path.iterdir()} == {"stage", "environment.json"}


def test_a_part_that_was_damaged_after_it_was_whole_is_done_again(run: RunDir) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("deepmac_distill.rundir.replace_folder", lambda *folders: begins(Killed)(folders[0]))
        with pytest.raises(Killed):
            do(run, writes("new"))
    (run.path / "stage.part" / "out.txt").write_text("damaged")
    assert content(do(run, writes("again")))["out.txt"] == b"again"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"inputs": 3}', "\udcff"])
def test_a_damaged_record_of_work_that_has_begun_begins_it_again_with_a_note(
    run: RunDir, damage: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(run, begins(KeyboardInterrupt))
    (run.path / "stage.part" / "inputs.json").write_bytes(damage.encode(errors="surrogateescape"))
    notes = Notes()
    assert content(do(run, writes("again"), progress=notes))["out.txt"] == b"again"
    assert "inputs.json: damaged; the stage begins again" in notes.lines[0]


def test_files_and_folders_are_on_the_disk_before_they_have_their_names(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    names: dict[int, str] = {}
    real_open, real_rename = os.open, Path.rename

    def opened(path: Any, *more: Any, **keys: Any) -> int:
        file = real_open(path, *more, **keys)
        names[file] = Path(path).name
        return file

    def rename(path: Path, target: Path) -> Path:
        events.append(f"{path.name} -> {target.name}")
        return real_rename(path, target)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", lambda file: events.append(names[file]))
    monkeypatch.setattr(Path, "rename", rename)
    do(run, writes("a"))
    published = events.index("stage.part -> stage")
    before, behind = events[:published], events[published + 1 :]
    assert before.index("out.txt") < before.index("stage.part", before.index("out.txt"))
    assert "done.json" in before and behind == ["run"]


def test_force_replaces_a_stage_that_is_a_link_and_leaves_its_target(run: RunDir, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another disk"
    do(run, writes("old")).rename(elsewhere)
    (run.path / "stage").symlink_to(elsewhere)
    before = content(elsewhere)
    do(run, refuse_to_work)  # it may be read where it is
    folder = do(run, writes("new"), force=True)
    assert (folder / "out.txt").read_text() == "new" and not folder.is_symlink()
    assert content(elsewhere) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("what", ["folder", "file", "dangling link"])
def test_what_another_has_put_where_a_stage_belongs_is_never_removed(
    run: RunDir, tmp_path: Path, what: str, force: bool
) -> None:
    do(run, writes("a")).rename(tmp_path / "away")
    place = run.path / "stage"
    match what:
        case "folder":
            place.mkdir()
            (place / "thesis.txt").write_text("precious")
        case "file":
            place.write_text("precious")
        case _:
            place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"stage: is not what this run made; .* move it away"):
        do(run, refuse_to_work, force=force)
    assert place.is_symlink() or "precious" in (place / "thesis.txt" if place.is_dir() else place).read_text()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("where", ["stage.part", "stage.part/metrics.jsonl", "stage.part/units/unit-1"])
def test_a_strangers_links_are_not_written_through(
    run: RunDir, tmp_path: Path, where: str, force: bool
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("kept")
    with pytest.raises(KeyboardInterrupt):
        do(run, begins(KeyboardInterrupt))
    if where == "stage.part":
        files.remove(run.path / where)
    (run.path / where).parent.mkdir(exist_ok=True)
    (run.path / where).symlink_to(victim if where == "stage.part" else victim / "precious")
    with pytest.raises(RunError, match="is a link, and this run would write through it"):
        do(run, refuse_to_work, force=force)
    assert content(victim) == {"precious": b"kept"}


@pytest.mark.parametrize("name", ["config.toml", "config.json", "validation_readings.jsonl"])
def test_a_link_in_place_of_a_runs_own_file_is_not_written_through(
    run: RunDir, tmp_path: Path, name: str
) -> None:
    (tmp_path / "victim").write_text("kept")
    do(run, writes("a"))
    (run.path / name).symlink_to(tmp_path / "victim")
    if name == "validation_readings.jsonl":
        with pytest.raises(RunError, match="is a link"):
            run.log_validation_reading("evaluate-teacher", Path("val.json"))
    else:
        run.record_config({"seed": 1}, "seed = 1\n")
        assert not (run.path / name).is_symlink()
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.parametrize(
    "record",
    [
        {"inputs": {}, "outputs": {"../../secret": "0"}},
        {"inputs": {}, "outputs": {"/etc/hostname": "0"}},
        {"inputs": {}, "outputs": {"out.txt": 3}},
        {"inputs": {}, "outputs": ["out.txt"]},
        {"inputs": [], "outputs": {}},
        {"outputs": {}},
        ["inputs"],
        None,
    ],
)
def test_a_strangers_record_is_refused_in_one_line(run: RunDir, record: Any) -> None:
    folder = do(run, writes("a"))
    (folder / "done.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"done\.json: cannot be read; --force redoes the stage") as refused:
        do(run, refuse_to_work)
    assert "\n" not in str(refused.value)
    assert content(do(run, writes("b"), force=True))["out.txt"] == b"b"


def test_a_process_that_was_killed_holds_no_run_though_its_workers_live(run: RunDir, tmp_path: Path) -> None:
    program = """if True:
        import os, sys, time
        from pathlib import Path
        from deepmac_distill.runlock import run_lock
        with run_lock(Path(sys.argv[1])):
            if not (worker := os.fork()):
                time.sleep(600)
            print(worker, flush=True)
            time.sleep(600)
    """
    command = [sys.executable, "-c", program, run.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        worker = int(holder.stdout.readline())
        try:
            assert is_held(run.path)
            holder.kill()
            holder.wait()
            assert not is_held(run.path)
        finally:
            os.kill(worker, signal.SIGKILL)


def test_what_another_process_renames_meanwhile_is_not_odd(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a").write_text("")
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: iter([folder / "a", folder / ".gone.part"]))
    assert files.first_odd(tmp_path) is None
    os.mkfifo(tmp_path / ".gone.part")
    assert files.first_odd(tmp_path) == tmp_path / ".gone.part"
