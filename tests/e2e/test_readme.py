"""The README is true: its commands run, its tree is the tree, its tables are the recorded figures."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deepmac_distill.cli import main
from deepmac_distill.config import recipes
from deepmac_distill.data.synthetic import write_scenes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = """
threads = 1
[teacher.model]
backbone = "tiny"
backbone_width = 8
head_channels = 8
mask_head = "hourglass-10"
mask_width = 8
mask_size = 8
[teacher.train]
steps = 4
batch_size = 2
image_size_px = 64
[student.model]
backbone = "tiny"
backbone_width = 8
head_channels = 8
mask_head = "resnet-4"
mask_width = 8
mask_size = 8
[student.train]
steps = 4
batch_size = 2
image_size_px = 64
[evaluation]
bootstrap = 20
"""


def commands_of_own_data() -> list[str]:
    """The lines under "Your own data", continuations joined, comments gone."""
    section = README.split("## Your own data")[1].split("```sh\n")[1].split("```")[0]
    lines = re.sub(r"\\\n", " ", section).splitlines()
    return [command for line in lines if (command := re.sub(r"\s+#.*", "", line).strip())]


def test_the_command_for_a_first_mask_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.split("## A mask, a minute after installation")[1].split("```sh\n")[1].split("```")[0]
    write_scenes(tmp_path / "scenes", images=1, seed=0, size_px=256)
    next((tmp_path / "scenes" / "images").iterdir()).rename(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(section.partition("#")[0])[1:])
    assert not stop.value.code
    assert {path.name for path in tmp_path.glob("photo-*")} == {"photo-masks.png", "photo-masks.json"}


def test_own_data_takes_ten_lines_at_most() -> None:
    assert len(README.split("## Your own data")[1].split("```sh\n")[1].split("```")[0].splitlines()) <= 10


def test_the_commands_for_own_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("train", 0), ("val", 1)):
        (tmp_path / "my").mkdir(exist_ok=True)
        write_scenes(tmp_path / name, images=4, seed=seed, size_px=64)
        (tmp_path / name / "instances.json").rename(tmp_path / "my" / f"{name}.json")
        for image in (tmp_path / name / "images").iterdir():
            (tmp_path / "my" / "images").mkdir(exist_ok=True)
            image.rename(tmp_path / "my" / "images" / f"{name}{image.name}")
        text = (tmp_path / "my" / f"{name}.json").read_text(encoding="utf-8")
        text = re.sub(r'"file_name": "', f'"file_name": "{name}', text)
        (tmp_path / "my" / f"{name}.json").write_text(text, encoding="utf-8")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "coco_sample.toml").write_text(SMALL, encoding="utf-8")
    next((tmp_path / "my" / "images").iterdir()).rename(tmp_path / "photo.jpg.png")
    (tmp_path / "photo.jpg.png").rename(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "FOLDER", tmp_path / "recipes")
    image = tmp_path / "photo.jpg"
    (tmp_path / "my" / "images" / _missing(tmp_path / "my")).write_bytes(image.read_bytes())
    for command in commands_of_own_data():
        words = shlex.split(
            command.replace("car,person", "ellipse,bar").replace("40,60,200,180", "8,8,40,40")
        )
        assert words[0] == "deepmac"
        with pytest.raises(SystemExit) as stop:
            main(words[1:])
        assert not stop.value.code, command


def _missing(folder: Path) -> str:
    names = set(re.findall(r'"file_name": "([^"]+)"', "".join(p.read_text() for p in folder.glob("*.json"))))
    (name,) = names - {path.name for path in (folder / "images").iterdir()}
    return name


def test_the_tree_is_the_tree() -> None:
    block = README.split("## How the parts fit")[1].split("```\n")[1]
    said = {line.split()[0].rstrip("/") for line in block.splitlines() if line.strip()}
    package = ROOT / "src" / "deepmac_distill"
    rooms = {
        path.name
        for path in package.iterdir()
        if not path.name.startswith(("__", ".")) and path.name != "py.typed"
    }
    top = {"src/deepmac_distill", "tests", "benchmarks", "docs", "examples", "cluster", "interop", "buckets"}
    assert said == rooms | top


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"^make ([a-z0-9-]+)", README, re.MULTILINE)) <= targets


def test_the_tables_are_the_recorded_figures() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "results.py"), "tables", "--check"]
    assert subprocess.run(command, check=False).returncode == 0
