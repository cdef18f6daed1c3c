"""Options that commands share stand in one place, and reach the pipeline as values."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from deepmac_distill.cli import jobs, options
from deepmac_distill.cli.options import Data, Pipeline, Redo, Run, Steps, TrainData, ValData, values_of
from deepmac_distill.config import load_pipeline
from deepmac_distill.errors import ConfigError

CLI = Path(jobs.__file__).parent
# Other options by the same word: a file or folder of that command alone.
OF_ONE_COMMAND = {"--out", "--images", "--seed", "--annotations"}


def declared(path: Path) -> set[str]:
    return set(re.findall(r'typer\.Option\(\s*"(--[a-z-]+)"', path.read_text(encoding="utf-8")))


def test_no_line_of_a_command_repeats_a_shared_option() -> None:
    shared = declared(CLI / "options.py") - OF_ONE_COMMAND
    assert {"--config", "--seen", "--strict", "--set", "--force", "--device", "--data"} <= shared
    repeated = {path.name: declared(path) & shared for path in CLI.glob("*.py") if path.name != "options.py"}
    assert not any(repeated.values()), repeated
    signatures = "".join(path.read_text(encoding="utf-8") for path in CLI.glob("*.py"))
    assert len(re.findall(r"^    (?:strict|seen|device|set_|force|data)\b.*= None,$", signatures, re.M)) == 0


def test_an_option_that_was_not_given_changes_nothing() -> None:
    assert values_of(Run(), Data(), TrainData(), ValData(), Redo()) == {}


PATH_FLAGS = [
    (group, item.name)
    for group in (Data, TrainData, ValData)
    for item in dataclasses.fields(group)
    if item.name not in ("seen", "hide", "strict")
]


@pytest.mark.parametrize(("group", "name"), PATH_FLAGS)
@pytest.mark.parametrize("path", ["𝔡ata/🎈.json", 'a b\'s "c"', "back\\slash", "x=1", "true"])
def test_a_path_reaches_the_pipeline_as_it_was_typed(group: type, name: str, path: str) -> None:
    given = values_of(group(**{name: path}))
    (key,) = given
    pipeline = load_pipeline(None, values=given)
    assert getattr(pipeline.data, key.removeprefix("data.")) == path


@pytest.mark.parametrize("name", ["seen", "hide"])
def test_names_of_classes_reach_the_pipeline_as_they_were_typed(name: str) -> None:
    pipeline = load_pipeline(None, values=values_of(Data(**{name: "🎈, x=1,a b"})))
    assert getattr(pipeline.data, name) == ("🎈", "x=1", "a b")


def test_every_path_flag_is_tested() -> None:
    assert {name for _, name in PATH_FLAGS} == {
        *("data", "annotations", "images", "val_annotations", "val_images")
    }


def test_a_class_name_outside_the_basic_plane_is_a_value_too(deepmac, small_toml, tmp_path: Path) -> None:
    ended = deepmac(
        *("teach", "--config", small_toml, "--out", tmp_path / "run", "--seen", "𝔠at"),
        *("--annotations", tmp_path / "🎈.json"),
    )
    assert ended.code == 2 and ended.err.splitlines()[-1].startswith(f"deepmac: {tmp_path / '🎈.json'}: ")


def test_a_pipeline_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    assert Pipeline(pipeline=path).path == Pipeline(config=path).path == path
    with pytest.raises(ConfigError, match="got none, expected one file"):
        _ = Pipeline().path
    with pytest.raises(ConfigError, match=r"got .*a\.toml and --config .*a\.toml, expected one file"):
        _ = Pipeline(pipeline=path, config=path).path


def test_steps_are_those_of_the_roles_that_a_command_trains() -> None:
    assert Steps().of("teacher", "student") == {}
    assert Steps(steps=3).of("student") == {"student.train.steps": 3}


def test_groups_of_a_command_share_no_option() -> None:
    groups = [group for group in vars(options).values() if dataclasses.is_dataclass(group)]
    leaves = [group for group in groups if not any(group in other.__mro__[1:] for other in groups)]
    names = [item.name for group in leaves if group is not Pipeline for item in dataclasses.fields(group)]
    assert len(set(names) - {"name"}) == len([name for name in names if name != "name"])
