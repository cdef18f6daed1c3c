"""`deepmac models`: every name, counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from deepmac_distill.models import catalog
from deepmac_distill.models.mask_heads import MASK_HEADS

# 10**9 multiply-adds per instance, counted on networks rebuilt from the authors' code, not on ours.
PUBLISHED_GMACS = {
    "resnet-4": 0.540,
    "resnet-20": 3.623,
    "bottleneck-21": 2.684,
    "bottleneck-quarter-51": 0.709,
    "hourglass-10": 0.948,
    "hourglass-20": 1.256,
    "hourglass-20-no-long-skips": 0.803,
    "hourglass-20-no-encoder-decoder": 5.637,
    "hourglass-52": 1.798,
    "hourglass-100": 3.199,
    "fully-connected-2": 0.071,
}


@pytest.fixture(scope="module")
def counted_once() -> Iterator[None]:
    """Building every model to count it takes 20 s; what the command prints of the counts takes none."""
    entries = list(catalog.catalog())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "catalog", lambda: iter(entries))
        yield


@pytest.fixture(scope="module")
def printed(deepmac: Callable, counted_once: None) -> list[dict]:
    return json.loads(deepmac("models", "--json").out)


def test_every_mask_head_is_there_with_the_published_work(printed: list[dict]) -> None:
    heads = {entry["name"]: entry for entry in printed if entry["kind"] == "mask head"}
    assert tuple(heads) == MASK_HEADS
    for name, gmacs in PUBLISHED_GMACS.items():
        assert heads[name]["gmacs"] == pytest.approx(gmacs, abs=6e-4)


def test_a_deeper_head_keeps_more_for_its_backward(printed: list[dict]) -> None:
    saved = {entry["name"]: entry["saved_mib"] for entry in printed if entry["kind"] == "mask head"}
    depths = ["hourglass-10", "hourglass-20", "hourglass-32", "hourglass-52", "hourglass-100"]
    assert [saved[name] for name in depths] == sorted(saved[name] for name in depths)
    assert all(value > 0 for value in saved.values())


def test_the_paper_s_models_are_there_with_their_figures(printed: list[dict]) -> None:
    models = {entry["name"]: entry for entry in printed if entry["kind"] == "model"}
    assert models["mask_rcnn spinenet-143, hourglass-52, gt"]["paper_figure"] == 38.7
    assert models["deepmac hourglass-104, hourglass-100"]["parameters"] > 2.3e8
    backbones = {entry["name"]: entry for entry in printed if entry["kind"] == "backbone"}
    assert backbones["hourglass-104"]["parameters"] == 187_700_352


def test_the_tables_name_them_too_and_are_whole_on_a_narrow_terminal(
    deepmac: Callable, counted_once: None, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = deepmac("models").out
    assert "…" not in text and max(map(len, text.partition("Figures of")[0].splitlines())) <= 60
    for name in ("bottleneck-quarter-51-literal", "spinenet-143", "resnet-20-dilated-10-late"):
        assert name in text
