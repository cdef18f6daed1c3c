"""Recipes travel with the package: `deepmac run demo` needs no clone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deepmac_distill.config import FOLDER, load_pipeline, located, recipe_names
from deepmac_distill.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_recipes_for_everybody_come_first() -> None:
    names = recipe_names()
    assert names[:5] == ["coco_sample", "coco_sample_mask_rcnn", "demo", "mask_heads", "starter"]
    assert all(name.startswith("paper/") for name in names[5:]) and len(names) > 5


def test_a_recipe_is_found_by_name_and_a_file_before_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert located(Path("demo")) == FOLDER / "demo.toml"
    assert located(Path("paper/teacher_hg100")) == FOLDER / "paper" / "teacher_hg100.toml"
    Path("demo").write_text("seed = 3")
    assert load_pipeline(located(Path("demo"))).seed == 3


@pytest.mark.parametrize("named", ["demoo", "paper", "../recipes/demo", "."])
def test_a_name_of_nothing_is_refused_with_the_names_there_are(tmp_path: Path, monkeypatch, named) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="expected a TOML file, or a recipe: coco_sample, "):
        located(Path(named))


def test_init_writes_a_recipe_to_edit_and_never_over_a_file(deepmac, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = deepmac("init", "mine.toml", "--from", "demo")
    assert (ended.code, ended.out) == (0, "mine.toml: demo; next: deepmac run mine.toml\n")
    assert Path("mine.toml").read_bytes() == (FOLDER / "demo.toml").read_bytes()
    Path("mine.toml").write_text("precious")
    for given, says in {
        ("mine.toml",): "mine.toml: is there already; expected a new file",
        ("other.toml", "--from", "dem"): "--from dem: no such recipe; expected one of coco_sample",
        ("gone/other.toml",): "gone/other.toml: no such folder",
        ("other",): "other: expected a name that ends in .toml",
    }.items():
        ended = deepmac("init", *given)
        assert ended.code == 2 and ended.err.startswith(f"deepmac: {says}")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
    assert Path("mine.toml").read_text() == "precious"


def test_the_wheel_holds_every_recipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    ended = subprocess.run(
        [*command, "--wheel-dir", tmp_path / "wheel", _copy_of_the_source(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.endswith(".toml")}
    recipes = {f"deepmac_distill/recipes/{name}.toml" for name in recipe_names()}
    assert held == recipes | {"deepmac_distill/paper.toml"}


def _copy_of_the_source(tmp_path: Path) -> Path:
    """Building writes beside the source; links keep it out of the repository."""
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "src"):
        (copy / name).symlink_to(ROOT / name)
    return copy
