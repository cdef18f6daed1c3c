"""docs/models.md: every row's keys are a model, and the figures are the paper's."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deepmac_distill.config import (
    DeepMacConfig,
    MaskRcnnConfig,
    ModelConfig,
    build_model_config,
    load_pipeline,
)
from deepmac_distill.experiments.mask_head_rows import PAIRS, Pair
from deepmac_distill.experiments.paper_tables import table
from deepmac_distill.models.build import build_model
from deepmac_distill.models.catalog import paper_models
from deepmac_distill.models.mask_heads import MASK_HEADS
from deepmac_distill.paper import Figure, figures, span
from deepmac_distill.paper import places as paper_places

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEADS_SECTION = "\n## Mask heads\n"
# Variants of ours, and those of other hourglasses than the one that table 5 ablates.
OURS = re.compile(r".*-literal|.*-late|hourglass-(?!20-).*-no-.*")
PRINTED_SO = "as printed; the three do not fit"
# Counted from the published structure: mask heads under Mask R-CNN with their deconvolution, for one mask.
BACKBONES = {("hourglass-104", 256): 187_700_352, ("hourglass-52", 256): 93_662_848}
BACKBONES |= {("hourglass-52", 128): 23_435_072}
HEADS_OF_MASK_RCNN = {
    "default-batch-norm": 2_625_537,
    "hourglass-20": 5_682_177,
    "hourglass-52": 23_606_145,
}


@dataclass(frozen=True)
class Row:
    """One row of the page: of a model where it has keys, else of a family of mask heads."""

    where: str
    what: str
    figure: str
    keys: dict[str, Any]

    @property
    def config(self) -> ModelConfig:
        return build_model_config(self.keys, str(PAGE))


def read_rows(text: str) -> list[Row]:
    """Every table row that has an inline table."""
    rows = []
    for line in text.splitlines():
        if "`{" not in line:
            continue
        where, what, figure, keys = (cell.strip() for cell in line.strip("|").split(" | "))
        keys = keys.removesuffix(", of `[teacher]`")
        assert re.fullmatch(r"`\{.*\}`", keys), line
        rows.append(Row(where, what, figure, tomllib.loads(f"model = {keys.strip('`')}")["model"]))
    return rows


TEXT = PAGE.read_text(encoding="utf-8")
ROWS = read_rows(TEXT)
TRAINED = [row for row in ROWS if "segmenter" not in row.keys]


def on_meta(config: ModelConfig) -> nn.Module:
    with torch.device("meta"):
        return build_model(config, 80, load_weights=False)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def label(row: Row) -> str:
    return f"{row.where}, {row.what}"


@pytest.mark.parametrize("row", TRAINED, ids=label)
def test_the_keys_of_a_row_are_a_model(row: Row) -> None:
    config = row.config
    model = on_meta(config)
    size = BACKBONES.get((config.backbone, config.backbone_width))
    assert size is None or parameters(model.backbone) == size
    if isinstance(config, MaskRcnnConfig) and config.class_agnostic:
        size = HEADS_OF_MASK_RCNN.get(config.mask_head)
        assert size is None or parameters(model.mask_head) == size


@pytest.mark.parametrize("row", TRAINED, ids=label)
def test_a_row_leaves_nothing_to_the_defaults_of_a_role(row: Row) -> None:
    """A teacher and a student have other defaults: what tells models apart is said."""
    needed = {
        DeepMacConfig: {"backbone", "mask_head"},
        MaskRcnnConfig: {"architecture", "backbone"},
    }
    assert needed[type(row.config)] <= row.keys.keys()


def places(where: str) -> set[str]:
    """What a cell such as `Tables 1, 2` names: `table 1` and `table 2`."""
    found = re.findall(r"(Tables?|Figure|Section|Appendix) ([0-9A-Z]+)(?:, (\d+))?", where)
    kinds = [(kind.lower().rstrip("s"), number) for kind, *numbers in found for number in numbers if number]
    return {f"{kind} {number}" for kind, number in kinds}


def test_every_table_of_the_paper_has_its_rows() -> None:
    cells = re.findall(r"^\| (.*?) \|", TEXT, re.MULTILINE)
    said = set().union(*map(places, cells))
    assert said == {
        *(f"table {n}" for n in range(1, 18)),
        "figure 3",
        "section 6",
        "appendix B",
        "appendix C",
    }


def test_every_published_mask_head_is_named_and_no_other() -> None:
    table = TEXT.split(HEADS_SECTION)[1].split("\nBeside them")[0]
    named = re.findall(r"`([a-z]+-[a-z0-9-]+)`", table)
    assert sorted(named) == sorted(set(named))
    assert set(named) == {name for name in MASK_HEADS if not OURS.fullmatch(name)}


def test_the_variants_beside_them_are_there() -> None:
    beside = TEXT.split(HEADS_SECTION)[1].split("\nBeside them")[1]
    endings = re.findall(r"`(-[a-z-]+)`", beside)
    assert len(endings) == 3
    published = [name for name in MASK_HEADS if not OURS.fullmatch(name)]
    made = {f"{name}{ending}" for name in published for ending in endings} & set(MASK_HEADS)
    made |= set(re.findall(r"`([a-z]+-[a-z0-9-]+)`", beside)) & set(MASK_HEADS)
    assert made >= {name for name in MASK_HEADS if OURS.fullmatch(name)}


@pytest.mark.parametrize("row", [row for row in ROWS if row.figure.count(" / ") == 2], ids=label)
def test_all_is_the_mean_over_20_and_60_classes(row: Row) -> None:
    every, voc, non_voc = (float(text) for text in re.findall(r"\d+\.\d", row.figure))
    assert (abs(every - (voc + 3 * non_voc) / 4) < 0.1001) != (PRINTED_SO in row.what)


# What it prints: the catalog's mask heads and models, Deep-MAC on Hourglass-104 by its mask head alone.
NAMED = {
    *MASK_HEADS,
    *(name.removeprefix("deepmac hourglass-104, ") for name, _ in paper_models()),
    "grabcut",
}
PRINTED = {name: figure for name, figure in figures().items() if name in NAMED}


@pytest.mark.parametrize(("name", "paper"), PRINTED.items(), ids=PRINTED)
def test_a_figure_that_deepmac_models_prints_is_on_the_page(name: str, paper: Figure) -> None:
    """Each was taken from the paper by itself."""
    where, figure = paper.where.split(",")[0], paper.value
    keys = re.sub(", (without detection|a mask for each class)$", "", name)
    parts = set(re.split(r",? ", keys)) - {"deepmac", "mask_rcnn"}
    rows = [row for row in ROWS if where in places(row.where) and parts <= set(map(str, row.keys.values()))]
    assert any(str(figure) in re.findall(r"\d+\.\d", row.figure) for row in rows), rows


def says(row: Row, where: str) -> bool:
    """Whether a row is of a place of the paper, or takes its figure from the caption there."""
    return where in places(row.where) or f"caption of {where}" in row.what.lower()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.a}-{pair.b}")
def test_a_figure_that_the_comparison_of_mask_heads_prints_is_on_the_page(pair: Pair) -> None:
    """Those of both heads, each in the place that it names."""
    for head, paper in zip((pair.a, pair.b), pair.paper, strict=True):
        where = paper.table.split(",")[0]
        there = [row for row in ROWS if says(row, where) and head in row.keys.values()]
        found = {figure for row in there for figure in re.findall(r"\d+\.\d", row.figure)}
        assert str(paper.unseen) in found, (head, where, there)


@pytest.mark.parametrize("row", [row for row in ROWS if "](" in row.where], ids=label)
def test_a_file_that_a_row_links_to_has_its_model(row: Row) -> None:
    path = PAGE.parent / re.search(r"\]\((.*)\)", row.where)[1]
    pipeline = load_pipeline(path)
    assert row.config in (pipeline.teacher.model, pipeline.student.model)
    assert "Expected: " in pipeline.purpose


KINDS = {"VOC": "seen", "non-VOC": "unseen", "all": "all", "box AP": "box", "IoU": "all"}


def claimed(figure: str) -> dict[str, float]:
    """Kind of figure, as paper.toml names it -> the figure of a cell."""
    whole = re.match(r"(?:IoU )?(\d+\.\d) / (\d+\.\d) / (\d+\.\d)", figure)
    if whole:
        return dict(zip(("all", "seen", "unseen"), map(float, whole.groups()), strict=True))
    found = re.findall(rf"({'|'.join(sorted(KINDS, key=len, reverse=True))}) (\d+\.\d)", figure)
    return {KINDS[kind]: float(value) for kind, value in found}


def printed(where: set[str]) -> list[dict[str, float]]:
    """The figures of each model in some places of the paper."""
    found = paper_places().items()
    return [row for place, models in found if place.startswith(tuple(where)) for row in models.values()]


NO_FIGURE = {"no figure of its own", "does not converge"}
WITH_FIGURES = [row for row in ROWS if " to " not in row.figure and row.figure not in NO_FIGURE]


@pytest.mark.parametrize("row", WITH_FIGURES, ids=label)
def test_the_figures_of_a_row_are_those_of_the_paper_each_under_its_kind(row: Row) -> None:
    """They stand in paper.toml alone; what a caption repeats stands in another table."""
    figure, _, of_boxes = row.figure.partition("; IoU of all classes ")
    here, claims = {"table "} if "(caption)" in row.what else places(row.where), claimed(figure)
    assert len(claims) == len(re.findall(r"\d+\.\d", figure)) > 0
    assert any(claims.items() <= one.items() for one in printed(here)), (row.where, claims)
    if of_boxes:
        assert {"all": float(of_boxes.removesuffix(" (B.1)"))} in printed({"appendix B.1"})


def test_figures_in_prose_are_those_of_the_paper() -> None:
    """Table 8's other direction, and what figure 3 draws."""
    text = " ".join(TEXT.split())
    other_way = re.search(r"Table 8 the other way round, .*?: VOC (.*?) Of ShapeMask", text)
    assert other_way is not None
    said = {name: float(value) for value, name in re.findall(r"(\d+\.\d) by ([^,.]+)", other_way[1])}
    start = "non-VOC to VOC: "
    rows = [row for row in table("table-8").rows if row.label.startswith(start) and "unseen" in row.papers]
    printed = {row.label.removeprefix(start).removesuffix(" from boxes alone"): row.papers for row in rows}
    assert said == {name: papers["unseen"] for name, papers in printed.items()} and len(said) == 7
    drawn = "Figure 3 draws these families on Hourglass-104: VOC {} to {}, non-VOC {} to {}."
    assert drawn.format(*span("figure 3, seen"), *span("figure 3, unseen")) in text
    (range_of_all,) = [
        re.match(r"all (\d+\.\d) to (\d+\.\d)", row.figure) for row in ROWS if " to " in row.figure
    ]
    names = [name for name in paper_places()["table 10"] if name.startswith("hourglass-20")]
    every = [paper_places()["table 10"][name]["all"] for name in names]
    assert tuple(map(float, range_of_all.groups())) == (min(every), max(every))


def test_what_the_page_points_at_is_there() -> None:
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
