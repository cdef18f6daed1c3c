from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill import rundir
from deepmac_distill.comparing import Comparing
from deepmac_distill.errors import RunError
from deepmac_distill.progress import Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.runlock import is_held


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def writes(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "out.txt").write_text(text) and None


def refuse_to_work(folder: Path) -> None:
    raise AssertionError("this work was done before")


def stopped_after(*names: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        for name in names:
            (folder / name).write_text("begun")
        raise KeyboardInterrupt

    return work


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def do(run: RunDir, work: Callable[[Path], None], inputs: dict[str, Any], **more: Any) -> Path:
    return run.run_stage("stage", inputs, work, more.pop("progress", Silent()), **more)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_is_written_before_the_first_stage_begins(run: RunDir) -> None:
    assert not run.path.exists() and not (run.path / "stage" / "done.json").exists()


def test_a_stage_is_whole_or_absent(run: RunDir) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(run, stopped_after("half.txt"), {"lr": 1})
    assert not (run.path / "stage" / "done.json").exists() and not (run.path / "stage").exists()
    folder = do(run, writes("a"), {"lr": 1})
    assert (run.path / "stage" / "done.json").exists() and folder == run.path / "stage"
    assert (folder / "out.txt").read_text() == "a"
    assert not (run.path / "stage.part").exists()


def test_the_record_holds_the_inputs_and_the_hash_of_every_output_but_no_scaffolding(run: RunDir) -> None:
    def work(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.bin").write_bytes(b"abc")
        for name in ("state.pt", "metrics.jsonl"):
            (folder / name).write_text("")

    folder = do(run, work, {"lr": 1, "seen": ("a", "b")})
    record = json.loads((folder / "done.json").read_text())
    assert record["inputs"] == {"lr": 1, "seen": ["a", "b"]}
    assert list(record["outputs"]) == ["deep/a.bin"]
    assert record["outputs"]["deep/a.bin"].startswith("ba7816bf8f01cfea")  # SHA-256 of abc
    assert {p.name for p in folder.iterdir()} == {"deep", "metrics.jsonl", "done.json"}
    assert set(json.loads((run.path / "environment.json").read_text())["packages"]) >= {"torch", "pyarrow"}


def test_the_same_inputs_are_skipped_and_change_no_byte(run: RunDir) -> None:
    do(run, writes("a"), {"lr": 1, "seen": ("a",)})
    before, notes = content(run.path), Notes()
    do(run, refuse_to_work, {"seen": ("a",), "lr": 1}, progress=notes)
    assert content(run.path) == before and notes.lines == ["stage: done before, skipped"]


@pytest.mark.parametrize(
    ("inputs", "named"),
    [({"lr": 2, "seed": 0}, "lr = 1, now 2"), ({"lr": 1}, "seed = 0, now None"), ({}, r"\(and 1 more\)")],
)
def test_other_inputs_are_refused_by_name_with_old_and_new_value(
    run: RunDir, inputs: dict[str, Any], named: str
) -> None:
    do(run, writes("a"), {"lr": 1, "seed": 0})
    before = content(run.path)
    with pytest.raises(RunError, match=named):
        do(run, refuse_to_work, inputs)
    assert content(run.path) == before


def test_a_change_that_redoes_a_stage_is_noted_and_any_other_beside_it_is_refused(run: RunDir) -> None:
    """A record that does not name an input means its value then; what nothing depends on is not compared."""
    how = {"comparing": Comparing(unnamed={"look.mirror": False}, dropped=("old",), redone_for=("look.",))}
    do(run, writes("a"), {"seed": 0, "old": 1})
    do(run, refuse_to_work, {"seed": 0, "look.mirror": False}, **how)
    with pytest.raises(RunError, match=r"made with look.mirror = False, now True \(and 1 more\)"):
        do(run, refuse_to_work, {"seed": 1, "look.mirror": True}, **how)
    notes = Notes()
    out = do(run, writes("b"), {"seed": 0, "look.mirror": True}, progress=notes, **how) / "out.txt"
    assert out.read_text() == "b"
    assert notes.lines == ["stage: made anew, since a key changed: look.mirror (False, now True)"]
    with pytest.raises(KeyboardInterrupt):
        do(run, stopped_after("half.txt"), {"seed": 0}, **how)
    assert out.read_text() == "b"  # until the new one is whole
    notes = Notes()
    do(run, writes("c"), {"seed": 0}, progress=notes, **how)
    assert out.read_text() == "c" and notes.lines == ["stage: goes on where it was stopped"]


def test_an_output_that_was_changed_or_removed_since_is_refused_by_name(run: RunDir) -> None:
    out = do(run, writes("a"), {}) / "out.txt"
    out.write_text("edited")
    with pytest.raises(RunError, match=r"out\.txt: was changed since"):
        do(run, refuse_to_work, {})
    out.unlink()
    with pytest.raises(RunError, match=r"out\.txt: is missing since"):
        do(run, refuse_to_work, {})


def test_force_starts_afresh_whatever_was_done_or_begun(run: RunDir) -> None:
    do(run, writes("a"), {"lr": 1})
    (run.path / "stage" / "out.txt").write_text("edited")
    assert (do(run, writes("b"), {"lr": 2}, force=True) / "out.txt").read_text() == "b"
    with pytest.raises(KeyboardInterrupt):
        do(run, stopped_after("old.txt"), {"lr": 3}, force=True)
    folder = do(run, writes("c"), {"lr": 4}, force=True)
    assert {p.name for p in folder.iterdir()} == {"out.txt", "done.json"}


def test_a_derived_stage_follows_its_inputs_and_is_redone_only_for_other_ones(run: RunDir) -> None:
    do(run, writes("a"), {"rule": 1}, derived=True)
    do(run, refuse_to_work, {"rule": 1}, derived=True)
    assert (do(run, writes("b"), {"rule": 2}, derived=True) / "out.txt").read_text() == "b"


def test_a_stopped_stage_goes_on_in_its_folder_with_the_same_inputs_only(run: RunDir) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(run, stopped_after("unit-0"), {"lr": 1})
    with pytest.raises(RunError, match="lr = 1, now 2"):
        do(run, refuse_to_work, {"lr": 2})
    notes, found = Notes(), []
    do(run, lambda folder: found.extend(p.name for p in folder.iterdir()), {"lr": 1}, progress=notes)
    assert sorted(found) == ["inputs.json", "unit-0"]
    assert notes.lines == ["stage: goes on where it was stopped"]


BEFORE = {"file": "a.json", "data.seen": ["cat", "dog"], "annotations": 8}


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (BEFORE | {"annotations": 9}, "other labels: annotations (8, now 9); expected"),
        (BEFORE | {"data.seen": ["cat"]}, "other labels: data.seen (now without dog); expected"),
        (
            BEFORE | {"file": "b.json", "data.seen": ["cat", "elk", "fox", "gnu", "hen"]},
            "other labels: file (a.json, now b.json), "
            "data.seen (now with elk, fox, gnu ..., without dog); expected",
        ),
        (BEFORE, "other labels: content (same file, data.seen, annotations); expected"),
        ({"file": "b.json"}, "other labels: file (a.json, now b.json); expected"),
        ({"another": 1}, "labels = 'abc', now 'def'; expected"),
        ({}, "labels = 'abc', now 'def'; expected"),
    ],
)
@pytest.mark.parametrize("stopped", [False, True])
def test_a_hash_that_differs_is_refused_with_what_is_known_of_both(
    run: RunDir, facts: dict[str, Any], says: str, stopped: bool
) -> None:
    about = {"labels": BEFORE}
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            do(run, stopped_after("unit-0"), {"labels": "abc"}, about=about)
    else:
        do(run, writes("a"), {"labels": "abc"}, about=about)
    with pytest.raises(RunError) as error:
        do(run, refuse_to_work, {"labels": "def"}, about={"labels": facts})
    assert f"stage was made with {says}" in str(error.value)


def test_of_several_changes_one_of_which_the_cause_is_known_goes_first(run: RunDir) -> None:
    do(run, writes("a"), {"images": "123", "labels": "abc"}, about={"labels": BEFORE})
    with pytest.raises(RunError, match=r"other labels: annotations \(8, now 9\) \(and 1 more\); expected"):
        do(run, refuse_to_work, {"images": "456", "labels": "def"}, about={"labels": {"annotations": 9}})


@pytest.mark.parametrize("about", [None, {}, {"labels": {"file": "moved.json", "new": 1}}])
def test_facts_about_the_same_input_are_not_compared(run: RunDir, about: dict[str, Any] | None) -> None:
    do(run, writes("a"), {"labels": "abc"}, about={"labels": BEFORE})
    do(run, refuse_to_work, {"labels": "abc"}, about=about)
    do(run, refuse_to_work, {"labels": "abc"}, about=about, derived=True)


def test_runs_that_kept_no_facts_go_on_and_are_skipped_as_ever(run: RunDir) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(run, stopped_after("unit-0"), {"labels": "abc"})
    (run.path / "stage.part" / "inputs.json").write_text('{"labels": "abc"}')
    with pytest.raises(RunError, match="labels = 'abc', now 'def'"):
        do(run, refuse_to_work, {"labels": "def"}, about={"labels": BEFORE})
    folder = do(run, writes("a"), {"labels": "abc"}, about={"labels": BEFORE})
    record = json.loads((folder / "done.json").read_text())
    assert record.pop("about") == {"labels": BEFORE}
    (folder / "done.json").write_text(json.dumps(record))
    do(run, refuse_to_work, {"labels": "abc"}, about={"labels": BEFORE})
    with pytest.raises(RunError, match="labels = 'abc', now 'def'"):
        do(run, refuse_to_work, {"labels": "def"}, about={"labels": BEFORE})


@pytest.mark.parametrize("left", [(), ("metrics.jsonl",), (".weights.safetensors.17.part",)])
def test_a_stage_that_kept_nothing_of_use_may_begin_again_with_other_inputs(
    run: RunDir, left: tuple[str, ...]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(run, stopped_after(*left), {"lr": 1})
    folder = do(run, writes("a"), {"lr": 2})
    assert list(json.loads((folder / "done.json").read_text())["outputs"]) == ["out.txt"]


def test_what_a_killed_writer_left_is_no_output(run: RunDir) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(run, stopped_after("unit-0", ".unit-1.17.part"), {"lr": 1})
    folder = do(run, writes("a"), {"lr": 1})
    assert {p.name for p in folder.iterdir()} == {"unit-0", "out.txt", "done.json"}


def test_a_run_stopped_just_before_its_last_rename_goes_on(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            do(run, writes("a"), {"lr": 1})
    assert not (run.path / "stage" / "done.json").exists()
    folder = do(run, writes("a"), {"lr": 1})
    assert content(folder)["out.txt"] == b"a" and "inputs.json" not in content(folder)


def test_a_record_that_cannot_be_read_is_refused_by_name(run: RunDir) -> None:
    folder = do(run, writes("a"), {})
    (folder / "done.json").write_text("{")
    with pytest.raises(RunError, match=r"done\.json: cannot be read; --force redoes"):
        do(run, refuse_to_work, {})


def test_an_output_of_a_stage_that_was_not_done_is_refused_by_name(run: RunDir) -> None:
    with pytest.raises(
        RunError, match=r"no teacher/weights\.safetensors; expected `deepmac teach --out .*run`"
    ):
        run.output("teacher", "weights.safetensors")


def test_a_folder_of_another_kind_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file; expected a run directory"):
        RunDir(tmp_path / "file")
    with pytest.raises(RunError, match="holds files but no run"):
        RunDir(tmp_path)
    (tmp_path / "empty").mkdir()
    RunDir(tmp_path / "empty")


def test_the_pipeline_file_is_kept_verbatim_beside_what_it_became(run: RunDir) -> None:
    run.record_config({"seed": 1}, "seed = 1 # why\n")
    assert (run.path / "config.toml").read_text() == "seed = 1 # why\n"
    assert json.loads((run.path / "config.json").read_text()) == {"seed": 1}


def test_every_reading_of_a_validation_set_is_logged(run: RunDir) -> None:
    do(run, writes("a"), {})
    for stage in ("evaluate-teacher", "report"):
        run.log_validation_reading(stage, Path("val.json"))
    lines = (run.path / "validation_readings.jsonl").read_text().splitlines()
    assert [(r["stage"], r["annotations"]) for r in map(json.loads, lines)] == [
        ("evaluate-teacher", "val.json"),
        ("report", "val.json"),
    ]


def test_a_second_process_is_kept_out_while_one_works(run: RunDir) -> None:
    def meanwhile(folder: Path) -> None:
        with pytest.raises(RunError, match="another process works in this run"):
            run.run_stage("other", {}, lambda folder: None, Silent())

    do(run, meanwhile, {})


def test_a_lock_that_is_a_link_is_neither_followed_nor_emptied(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    run.path.mkdir()
    (run.path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match=r"\.lock: is a link; expected a file"):
        do(run, refuse_to_work, {})
    assert (tmp_path / "precious").read_text() == "kept" and not is_held(run.path)


def test_whether_somebody_works_in_a_run_is_asked_without_writing(run: RunDir) -> None:
    assert not is_held(run.path) and not run.path.exists()
    found: list[bool] = []
    do(run, lambda folder: found.append(is_held(run.path)), {})
    assert found == [True] and not is_held(run.path)


def test_what_a_killed_writer_left_in_the_run_goes_with_the_next_stage(run: RunDir) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    (run.path / "environment.json").write_text("{}")
    (run.path / ".config.json.0123456789ab.part").write_text("{")
    run.run_stage("teacher", {}, lambda folder: None, Silent())
    assert sorted(path.name for path in run.path.iterdir() if "lock" not in path.name) == [
        "environment.json",
        "teacher",
    ]


def test_a_run_that_was_killed_at_its_first_file_is_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, written = RunDir(tmp_path / "run"), rundir.write_json

    def killed(path: Path, value: Any) -> None:
        (path.parent / f".{path.name}.0a1b2c.part").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(rundir, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        run.run_stage("teacher", {"lr": 1}, writes("a"), Silent())
    monkeypatch.setattr(rundir, "write_json", written)
    RunDir(tmp_path / "run").run_stage("teacher", {"lr": 1}, writes("a"), Silent())
    found = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".lock")}
    assert found == {"environment.json", "teacher"}
