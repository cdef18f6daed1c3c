"""Paired differences of the paper's rows: by image and by seed, among the same classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepmac_distill.dataset.classes import VOC_NAMES, Classes
from deepmac_distill.errors import RunError
from deepmac_distill.experiments.paper_kept import Aps, Kept, Scores
from deepmac_distill.experiments.paper_page import lines_of, result_of
from deepmac_distill.experiments.paper_pairs import differences_of, pairs_of, pairs_sentence, pairs_table
from deepmac_distill.experiments.paper_runs import KeptInstances
from deepmac_distill.experiments.paper_tables import PaperRow, table, tables
from deepmac_distill.paper import span

HEADS = Path(__file__).parents[2] / "benchmarks" / "results" / "mask_heads"
CLASSES = Classes(("cat", "dog", "fox", "owl"), (1, 2, 3, 4), (True, True, False, False))
INSTANCES = KeptInstances(tuple(np.repeat(range(60), 4).tolist()), tuple([1, 2, 3, 4] * 60))
TABLE = table("table-4")  # Hourglass-20 over ResNet-4, and Hourglass-52


class Known(Kept):
    """Rows that are known without a file."""

    def __init__(self, scores: dict[str, Scores]) -> None:
        super().__init__(Path("none"), Path("none"))
        object.__setattr__(self, "scores", scores)

    def scores_of(self, of: Any, row: PaperRow, scale: Any) -> Scores | None:
        return self.scores.get(row.label)


def scores(lead: float, seeds: tuple[int, ...] = (0, 1, 2), classes: Classes = CLASSES) -> Scores:
    """IoUs that differ much by image and little by seed; unseen classes lead by so much."""
    rng = np.random.default_rng(1)
    of_image = np.repeat(rng.uniform(0.2, 0.6, 60), 4)
    unseen = np.array([not classes.seen[id - 1] for id in INSTANCES.category_id])
    noise = {seed: 0.001 * np.random.default_rng(seed).normal(size=240) for seed in seeds}
    by_seed = {seed: tuple((of_image + lead * unseen + noise[seed]).tolist()) for seed in seeds}
    return Scores(INSTANCES, by_seed, classes, classes.unseen_names)


def test_a_lead_is_found_that_independent_rows_would_hide() -> None:
    kept = Known({"Hourglass-20": scores(0.03), "ResNet-4": scores(0.0)})
    found = differences_of(TABLE, TABLE.rows, "small", kept)
    one = found["Hourglass-20", "ResNet-4"]
    assert one.seeds == (0, 1, 2) and one.unseen.value == pytest.approx(0.03, abs=1e-3)
    assert one.unseen.low > 0.02 and one.unseen.high < 0.04 and one.unseen.seeds_df == 2
    assert one.seen is not None and one.seen.low <= 0 <= one.seen.high
    assert found["ResNet-4", "Hourglass-20"].unseen.value == pytest.approx(-one.unseen.value)
    (pair,) = pairs_of(TABLE, TABLE.rows, found)
    assert pair.paper == pytest.approx(15.7) and pair.verdict == "yes"
    assert pair.ours.gap is not None and pair.ours.gap.low > 0.02
    words = "The paper's order on unseen classes: Hourglass-20 over ResNet-4. "
    words += "Unseen − seen above zero, "
    assert pairs_sentence([pair]) == f"{words}1 of 1: Hourglass-20 over ResNet-4."
    both = replace(pair, ours=replace(pair.ours, gap=pair.ours.seen))
    assert pairs_sentence([both]) == f"{words}0 of 1."
    (cells,) = pairs_table("table-4", [pair]).texts()
    assert cells[:2] == ["Hourglass-20 − ResNet-4", "3"] and cells[6:] == ["+15.7", "yes"]


def test_seeds_in_common_alone_are_paired_and_one_shows_nothing() -> None:
    kept = Known({"Hourglass-20": scores(0.03, (0, 2)), "ResNet-4": scores(0.0, (1, 2))})
    found = differences_of(TABLE, TABLE.rows, "small", kept)
    (pair,) = pairs_of(TABLE, TABLE.rows, found)
    assert pair.ours.seeds == (2,) and pair.verdict == "one seed shows nothing"
    kept = Known({"Hourglass-20": scores(0.03, (0,)), "ResNet-4": scores(0.0, (1,))})
    assert differences_of(TABLE, TABLE.rows, "small", kept) == {}


def test_rows_of_other_classes_are_not_paired_and_of_other_instances_refused() -> None:
    swapped = Classes(CLASSES.names, CLASSES.category_ids, tuple(not one for one in CLASSES.seen))
    other = replace(scores(0.0), instances=KeptInstances(INSTANCES.image_id, INSTANCES.category_id[::-1]))
    kept = Known({"Hourglass-20": scores(0.03), "ResNet-4": scores(0.0, classes=swapped)})
    assert differences_of(TABLE, TABLE.rows, "small", kept) == {}
    kept = Known({"Hourglass-20": scores(0.03), "ResNet-4": other})
    message = "table-4: 'Hourglass-20' was evaluated on other instances than 'ResNet-4'; expected one data"
    with pytest.raises(RunError, match=message):
        differences_of(TABLE, TABLE.rows, "small", kept)
    shown_one = replace(CLASSES, seen=(True, False, False, False))
    first, second = (replace(scores(0.0, classes=c), about=("fox", "owl")) for c in (CLASSES, shown_one))
    found = differences_of(TABLE, TABLE.rows, "small", Known({"Hourglass-20": first, "ResNet-4": second}))
    assert found["Hourglass-20", "ResNet-4"].seen is None  # they were shown masks of other classes


def test_pairs_name_rows_of_their_table_the_papers_better_first() -> None:
    for of in tables().values():
        rows = {row.label: row.papers for row in of.rows}
        assert of.pairs or of.stated or of.id == "table-9", of.id
        for a, b in of.pairs:
            for split in ("unseen", "all"):
                if split in rows[a] and split in rows[b]:
                    assert rows[a][split] >= rows[b][split] - 0.1, (of.id, a, b)


def test_what_learns_nothing_is_read_in_both_directions_from_one_row(tmp_path: Path) -> None:
    of, kept = table("table-8"), Kept(tmp_path, HEADS)
    one, other = (row for row in of.rows if row.recorded == "grabcut-or-box")
    first, second = kept.found_of(of, one, "small"), kept.found_of(of, other, "small")
    assert first is not None and second is not None
    assert first.figures["seen"] == second.figures["unseen"] != first.figures["unseen"]
    about = kept.scores_of(of, other, "small")
    assert about is not None and set(about.about) == set(VOC_NAMES)


def test_ap_of_several_seeds_is_paired_by_seed() -> None:
    class Detected(Known):
        def aps_of(self, of: Any, row: PaperRow, scale: Any) -> Aps | None:
            lead = {"Hourglass-20": 0.02, "ResNet-20": 0.0}.get(row.label)
            if lead is None:
                return None
            noise = {0: 0.3, 1: 0.35, 2: 0.32}  # of a seed, in both rows
            by_seed = {
                seed: {"all": 0.0, "seen": ap, "unseen": ap - 0.1 + lead + 0.001 * seed * (lead > 0)}
                for seed, ap in noise.items()
            }
            return Aps(by_seed, "unseen", CLASSES, CLASSES.unseen_names)

    of = table("table-5")
    found = differences_of(of, of.rows, "coco", Detected({}))
    one = found["Hourglass-20", "ResNet-20"]
    assert one.seeds == (0, 1, 2) and one.unseen.value == pytest.approx(0.021)
    assert one.unseen.low is not None and one.unseen.low > 0.018 and one.unseen.seeds_df == 2
    assert one.gap is not None and one.gap.value == pytest.approx(0.021)
    assert one.seen is not None and one.seen.value == pytest.approx(0.0)
    (pair,) = pairs_of(of, of.rows, found)
    assert pair.verdict == "yes"


def test_rows_that_are_one_run_at_a_scale_are_compared_once() -> None:
    """Table 1 has two backbones, of which the small scale makes one."""
    of, shown = table("table-1"), ("ResNet-50-FPN", "ResNet-101-FPN")
    given = {f"{backbone}, gt": scores(0.03) for backbone in shown}
    loose = {f"{backbone}, proposals+gt": scores(0.0) for backbone in shown}
    found = result_of(of, of.rows, "small", Known({**given, **loose}))
    assert [pair.a for pair in found.pairs] == ["ResNet-50-FPN, gt"]
    assert [row.same_as for row in found.rows] == ["", "", "ResNet-50-FPN, proposals+gt", "ResNet-50-FPN, gt"]
    assert result_of(of, of.rows, "coco", Known({})).rows[-1].same_as == ""


def test_ranges_that_the_paper_gives_are_printed() -> None:
    words = " ".join(lines_of(result_of(table("appendix-c"), table("appendix-c").rows, "coco", Known({}))))
    low, high = span("appendix C, one seen class, unseen")
    assert f"appendix C, one seen class, unseen {low} to {high}" in words


def test_an_order_that_the_paper_puts_into_words_has_a_verdict() -> None:
    of = table("appendix-c")
    about = replace(scores(0.03), about=CLASSES.names)
    given = {"bottle": about, "bicycle": replace(scores(-0.03), about=CLASSES.names)}
    found = result_of(of, of.rows, "small", Known(given))
    (pair,) = found.pairs
    assert (pair.a, pair.b, pair.paper, pair.verdict) == ("bottle", "bicycle", None, "yes")
    assert ("person", "bicycle") in of.stated and ("bicycle", "person") not in of.stated
    alone = {name: replace(one, by_seed={0: one.by_seed[0]}) for name, one in given.items()}
    found = result_of(of, of.rows, "small", Known(alone))
    assert found.pairs[0].verdict == "one seed shows nothing"
    (line,) = pairs_table("", found.pairs).rows
    assert line[5] is None  # a difference that would be found holds the noise of seeds


def test_what_does_not_learn_has_every_seed_of_the_other_row() -> None:
    alone = replace(scores(0.0), learns=False)
    grabcut = replace(alone, by_seed={0: alone.by_seed[0]})
    of = table("table-8")
    a, b = "VOC to non-VOC: Deep-MAC", "VOC to non-VOC: Mask GrabCut"
    found = differences_of(of, of.rows, "small", Known({a: scores(0.03), b: grabcut}))
    assert found[a, b].seeds == (0, 1, 2) and found[a, b].unseen.seeds_df == 2
    assert found[b, a].unseen.value == pytest.approx(-found[a, b].unseen.value)
