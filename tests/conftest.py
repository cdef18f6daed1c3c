"""The command line in this process, and one run of the whole chain that many tests look at."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from deepmac_distill.cli import main
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.dataset import cache
from deepmac_distill.dataset.tables import Tables

# The same examples every time: a suite that fails by chance says nothing. `make soak` draws new ones.
hypothesis.settings.register_profile("suite", derandomize=True)
hypothesis.settings.load_profile("suite")

MODEL = """
backbone = "tiny"
backbone_width = 8
head_channels = 8
mask_width = 8
mask_size = 8
"""
TRAIN = """
steps = 12
batch_size = 4
image_size_px = 64
ema_decay = 0.9
checkpoint_every = 4
"""
SMALL = f"""
threads = 1
device = "cpu"

[teacher.model]{MODEL}mask_head = "hourglass-10"
[teacher.train]{TRAIN}
[student.model]{MODEL}
[student.train]{TRAIN}
[labels]
unit_images = 4
batch_size = 3

[evaluation]
bootstrap = 20
max_detections = 10
"""
SCENES = f"""
purpose = "Every stage once, in seconds; what it reaches is not looked at."
{SMALL}
[data]
source = "scenes"
seen = {list(SEEN_SHAPES)}

[data.scenes]
train_images = 24
val_images = 8
size_px = 64
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def run_command(*arguments: str | Path) -> Ended:
    """`deepmac` with these arguments, without the seconds that a process of its own takes to start."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(argument) for argument in arguments])
    return Ended(ended.value.code or 0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def deepmac() -> Callable[..., Ended]:
    return run_command


@pytest.fixture(scope="session")
def small_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models and few steps, no data."""
    path = tmp_path_factory.mktemp("pipelines") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def scenes_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on generated scenes."""
    path = tmp_path_factory.mktemp("pipelines") / "scenes.toml"
    path.write_text(SCENES)
    return path


@pytest.fixture(scope="session")
def chain_and_parses(
    scenes_toml: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[Path, Ended], list[Path]]:
    """A run of the whole chain, how it ended, and the annotation files that it parsed."""
    parsed: list[Path] = []
    ingest = cache.ingest

    def counted(path: Path, folder: Path, sizes: Any) -> Tables:
        parsed.append(path)
        return ingest(path, folder, sizes)

    folder = tmp_path_factory.mktemp("runs") / "chain"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "ingest", counted)
        patch.setenv("DEEPMAC_CACHE", str(folder.parent / "cache"))  # nothing was parsed for an earlier test
        return (folder, run_command("run", scenes_toml, "--out", folder)), parsed


@pytest.fixture(scope="session")
def chain(chain_and_parses: tuple[tuple[Path, Ended], list[Path]]) -> tuple[Path, Ended]:
    """A run of the whole chain, and how it ended. To be looked at: tests that change it take a copy."""
    return chain_and_parses[0]


@pytest.fixture
def run_copy(chain: tuple[Path, Ended], tmp_path: Path) -> Callable[..., Path]:
    """Copies of the run, without the stages that are named."""

    def copy(*without: str) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(chain[0], folder, ignore=shutil.ignore_patterns(*without))
        return folder

    return copy


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves tables of its annotation files in the user's cache, or finds any there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPMAC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
