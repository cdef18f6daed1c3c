"""The documents beside the README are true: what they name exists, what they repeat is equal."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import torch

from deepmac_distill import __version__
from deepmac_distill.cli.app import RENAMED as RENAMED_FLAGS
from deepmac_distill.config.reading import RENAMED
from deepmac_distill.contract import SegmentedMasks
from deepmac_distill.structures import Instances

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "deepmac_distill"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CODE = [
    path
    for base in (PACKAGE, *(ROOT / name for name in ("benchmarks", "examples", "tests")))
    for path in base.rglob("*.py")
    if path != Path(__file__)
]
TEXTS = sorted([*PAGES, *CODE, *PACKAGE.rglob("*.toml"), ROOT / "Makefile"])
NOT_OURS = re.compile(
    r"\bjudg|colour|flavour|behaviour|neighbour|favour|centre|labelled|labelling|catalogue|licence|\bgrey"
    r"|(normal|raster|summar|quant|recogn|organ|initial|optim|minim|maxim|visual|general|special)is(e|ing|ation)",
    re.IGNORECASE,
)


def named_files(page: Path) -> set[str]:
    """Paths in backticks that begin with a folder of the repository or a room of the package, and links."""
    text = page.read_text(encoding="utf-8")
    folders = {path.name for base in (ROOT, PACKAGE) for path in base.iterdir() if path.is_dir()}
    quoted = re.findall(r"`([\w.-]+/[\w./-]*)`", text)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return {path for path in quoted if path.split("/")[0] in folders - {"runs"}} | {
        link for link in links if "://" not in link
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    bases = (page.parent, ROOT, PACKAGE)
    assert [name for name in sorted(named_files(page)) if not any((b / name).exists() for b in bases)] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = re.findall(
        r"(?:^|`|run: )make ([a-z0-9-]+)", "\n".join(map(_text, [*PAGES, *_workflows()])), re.M
    )
    assert named and set(named) <= targets


def test_one_version_is_named_everywhere() -> None:
    assert re.search(r"^version: (\S+)$", _text(ROOT / "CITATION.cff"), re.M)[1] == __version__
    assert re.search(r"^## (\S+)", _text(ROOT / "CHANGELOG.md"), re.M)[1] == __version__
    project = tomllib.loads(_text(ROOT / "pyproject.toml"))
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]


@pytest.mark.parametrize(("what", "renamed"), [("key", RENAMED), ("flag", RENAMED_FLAGS)])
def test_the_changelog_names_all_that_was_renamed(what: str, renamed: dict[str, str]) -> None:
    table = _text(ROOT / "CHANGELOG.md").split(f"| {what} before | {what} now |\n|---|---|\n")[1]
    assert dict(re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \|$", table.split("\n\n")[0], re.M)) == renamed


def test_the_workflow_tests_the_pythons_that_the_package_names() -> None:
    (workflow,) = _workflows()
    tested = re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", _text(workflow))[1])
    classifiers = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]["classifiers"]
    assert tested == [c.rpartition(" ")[2] for c in classifiers if re.search(r"Python :: 3\.", c)]


def test_the_teacher_of_the_contributing_page_keeps_the_contract() -> None:
    code = _text(ROOT / "CONTRIBUTING.md").split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    boxes = [torch.tensor([[0.0, 0.0, 8.0, 8.0], [2.0, 2.0, 6.0, 7.0]])]
    masks = names["FullBox"]().segment(
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8), Instances.of_boxes(boxes, [torch.zeros(2).long()], 16)
    )
    assert isinstance(masks, SegmentedMasks) and masks.grids.shape == (2, 16, 16) and masks.answered.all()


def test_spelling_is_american_and_models_are_evaluated() -> None:
    found = {
        path.relative_to(ROOT): [m[0] for m in NOT_OURS.finditer(_without_old_keys(path))] for path in TEXTS
    }
    assert {path: words for path, words in found.items() if words} == {}


STIFF = re.compile(r"\b(told|tells?|says|wants|lies|judged?)\b", re.IGNORECASE)
PROSE_WIDTH = 120


def test_prose_of_pages_and_package_uses_plain_verbs() -> None:
    """Edges of grids and centers of cells may lie somewhere; files and people do not."""
    code = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "geometry"]
    found = {path.relative_to(ROOT): STIFF.findall(_without_old_keys(path)) for path in [*PAGES, *code]}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_of_a_page_is_not_wider_than_a_screen(page: Path) -> None:
    written = re.sub(r"<!-- results:.*?<!-- end -->", "", _text(page), flags=re.DOTALL)
    wide = [line for line in written.splitlines() if len(line) > PROSE_WIDTH and not line.startswith("|")]
    assert wide == []


def _without_old_keys(path: Path) -> str:
    return re.sub(r'["`](colour_jitter|labelled|judged\.json)["`]', "", _text(path))


def _workflows() -> list[Path]:
    return sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
