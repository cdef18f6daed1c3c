"""Trials of the paper's small trainings: each once, what failed by name, and what ran not again."""

from __future__ import annotations

from pathlib import Path

import pytest

import paper
import paper_trials
from deepmac_distill.evaluation.results import read_result


def test_trainings_are_tried_once_each_and_those_that_fail_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    called: list[list[str]] = []

    def command(words: list[str]) -> int:
        called.append(words)
        return int("cpmask" in words)

    some = {"shapemask": "table-8", "cpmask": "table-8"}
    monkeypatch.setattr(paper, "main", command)
    monkeypatch.setattr(paper_trials, "wanted", lambda: some)
    path = tmp_path / "trials.json"
    given = ["data", "--steps", "3", "--json", str(path), "--set", "threads=1"]
    assert paper_trials.main(given) == 1
    assert called[0][:7] == ["run", "table-8", "small", "--data", "data", "--only", "shapemask"]
    assert called[0][-2:] == ["--set", "threads=1"] and "3" in called[0]
    found = read_result(path, paper_trials.Trials)
    assert {name: trial.exit_code for name, trial in found.trials.items()} == {"shapemask": 0, "cpmask": 1}
    assert "1 of 2 small trainings ran for 3 steps; failed: cpmask." in capsys.readouterr().out
    some["grabcut"] = "table-8"
    assert "not tried: grabcut" in paper_trials.tried(path)
    assert paper_trials.main(given) == 1 and len(called) == 3  # what was tried is not tried again
    for other, says in (
        (["--steps", "4"], "steps: tried with 3, asked for 4; expected"),
        (["--set", "threads=2"], "set: tried with threads=1, asked for threads=1 threads=2; expected"),
    ):
        assert paper_trials.main([*given, *other]) == 2 and len(called) == 3
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
    monkeypatch.setattr(paper_trials, "recipe_of", lambda name: "other")
    assert paper_trials.tried(path).startswith("0 of 3 small") and "shapemask" in paper_trials.tried(path)
    monkeypatch.undo()
    path.write_text("{}")
    assert paper_trials.main(given) == 2 and capsys.readouterr().err.count("\n") == 1


def test_every_small_training_that_is_not_recorded_is_wanted(tmp_path: Path) -> None:
    wanted = paper_trials.wanted(tmp_path)
    assert {"shapemask", "cpmask", "one-class-bottle", "mask-x"} <= set(wanted)
    assert "deepmac-1024-from-detector" not in wanted and "grabcut-non-voc" not in wanted


def test_a_training_that_is_recorded_whole_is_not_tried_but_one_of_another_recipe_is(tmp_path: Path) -> None:
    (kept,) = paper_trials.WHOLE.glob("one-class-bottle-seed-0.json")
    text = kept.read_text()
    (tmp_path / kept.name).write_text(text)
    assert set(paper_trials.wanted(tmp_path / "none")) - set(paper_trials.wanted(tmp_path)) == {
        "one-class-bottle"
    }
    assert '"teacher.train.steps": 160,' in text
    (tmp_path / kept.name).write_text(
        text.replace('"teacher.train.steps": 160,', '"teacher.train.steps": 16,')
    )
    assert "one-class-bottle" in paper_trials.wanted(tmp_path)
