"""Keys of trainings that change no weight: what they write beside them, and what is refused."""

from __future__ import annotations

from pathlib import Path


def test_recomputing_and_trackers_leave_the_weights_as_they_are(
    chain, deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    keys = ("--set", "teacher.train.recompute=true", "--set", 'log.to=["tensorboard"]')
    ended = deepmac("teach", "--config", scenes_toml, "--out", out, *keys)
    assert ended.code == 0, ended.err
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (out / "teacher" / name).read_bytes() == (chain[0] / "teacher" / name).read_bytes()
    (events,) = (out / "tensorboard" / "teacher").iterdir()
    assert b"images_per_second" in events.read_bytes() and b"peak_memory_bytes" in events.read_bytes()
    again = deepmac("teach", "--out", out, "--set", "teacher.train.recompute=false")
    assert again.code == 0 and "teacher: done before, skipped" in again.err


def test_trackers_that_nobody_knows_are_refused_in_one_line(
    deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    for value in ('["wandb"]', '["tensorboard", "tensorboard"]', '"tensorboard"', "3"):
        ended = deepmac("teach", "--config", scenes_toml, "--out", tmp_path, "--set", f"log.to={value}")
        assert ended.code == 2 and ended.err.startswith("deepmac: ") and "log.to" in ended.err, ended.err
        assert ended.err.count("\n") == 1


def test_a_tracker_writes_through_no_link(deepmac, scenes_toml: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "environment.json").write_text("{}")
    (out / "tensorboard").symlink_to(outside)
    ended = deepmac("teach", "--config", scenes_toml, "--out", out, "--set", 'log.to=["tensorboard"]')
    assert ended.code == 2 and "tensorboard: is a link" in ended.err.splitlines()[-1], ended.err
    assert not list(outside.iterdir())
