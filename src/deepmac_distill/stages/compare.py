"""Evaluations side by side: paired differences of two, a contact sheet of any number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pyarrow as pa

from deepmac_distill.data.image_places import images_at
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.data.images import MAX_MEGAPIXELS, Exif
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.parquet import READING_FAILS
from deepmac_distill.dataset.row_batches import read_rows
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import ConfigError, DataError, RunError
from deepmac_distill.evaluation.average_precision import KINDS, CocoTruth, Detection
from deepmac_distill.evaluation.how_evaluated import HowEvaluated
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.evaluation.paired_precision import compare_average_precision
from deepmac_distill.evaluation.results import Comparison, PairedDetections, read_result
from deepmac_distill.evaluation.splits import Named
from deepmac_distill.evaluation.summary import compare_given_boxes
from deepmac_distill.made_with import refuse_edit
from deepmac_distill.progress import Progress
from deepmac_distill.regular import MOST_LIST_BYTES, read_small
from deepmac_distill.report.contact_sheet import contact_sheet
from deepmac_distill.stages.outputs import require_ours
from deepmac_distill.stages.sheet import EvaluatedMasks, draw_sheet
from deepmac_distill.storage.fetching import fetched

_TYPES = {field.name: field.type for field in IOU_SCHEMA}
RESULTS = "detections.json"
MAX_AP_RESAMPLES = 200  # each goes over all matched detections; IoU resamples cost next to nothing


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """What an evaluation is of: `evaluation.json`."""

    annotations: str
    annotations_sha256: str
    seen: tuple[str, ...]  # classes
    weights: str
    how: HowEvaluated = field(default_factory=HowEvaluated)
    images: str | None = None  # older evaluations do not name it
    annotations_from_here: str | None = None  # relative to the folder of the evaluation
    images_from_here: str | None = None
    exif: Exif = "as-stored"  # how its images were read
    max_megapixels: int = MAX_MEGAPIXELS
    shown_elsewhere: tuple[str, ...] = ()  # unseen classes whose masks the model saw elsewhere
    hidden: tuple[str, ...] = ()  # of the training file; empty: it is of a validation set
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of `evaluation.splits`


def compare_on(
    truth: Truth,
    a: Sequence[Path],
    b: Sequence[Path],
    resamples: int,
    seed: int,
    progress: Progress | None = None,
) -> Comparison:
    """Paired differences, a minus b, of evaluations on a validation set.

    Args:
        a, b: evaluation folders, one of each seed; the two are paired in this order.

    Raises:
        RunError: a folder holds no evaluation.
        DataError: one was evaluated on something else.
    """
    _require_evaluated_on(truth, (*a, *b))
    for folders in (a, b):
        require_one_way(folders)
    elsewhere, named = seen_elsewhere((*a, *b)), splits_of((*a, *b))
    ious_a, ious_b = ([read_ious(folder) for folder in folders] for folders in (a, b))
    return Comparison(
        given_boxes=compare_given_boxes(
            ious_a, ious_b, truth.classes, resamples, seed, shown_elsewhere=elsewhere, named=named
        ),
        detected=_compare_detections(truth, a, b, elsewhere, named, resamples, seed, progress),
        how=(read_record(a[0]).how, read_record(b[0]).how),
    )


def sheet(folders: Mapping[str, Path], out: Path, images: Path | None = None, each: int = 1) -> str:
    """Write a contact sheet of any number of evaluations on one validation set; returns what it ranks.

    Args:
        folders: heading -> evaluation folder.
        out: a .png file.
        images: folder of the validation images; None: the one that the first evaluation used.
        each: so many of the worst, of the median and of the best masks of each.

    Raises:
        RunError: a folder holds no evaluation, or `out` is a file of somebody else.
        DataError: they were evaluated on other instances, the set has changed since, or it has no true mask.
        ConfigError: no folder of images is given or known.
    """
    require_ours([out], [])
    all_folders = tuple(folders.values())
    truth = truth_of(all_folders)
    store = _images_of(all_folders[0], images)
    if store is None:
        raise ConfigError("sheet: no folder of images is known of this evaluation; expected --images FOLDER")
    masks = {name: evaluated_masks(folder, truth) for name, folder in folders.items()}
    drawn = draw_sheet(truth, store, masks, each, seen_elsewhere(all_folders))
    if not drawn.rows:
        raise DataError(
            f"{truth.path}: no true masks to show; expected at least one on which all were evaluated"
        )
    contact_sheet(drawn.rows, out, " and ".join(folders), drawn.note)
    return drawn.note


def evaluated_masks(folder: Path, truth: Truth) -> EvaluatedMasks:
    """Masks and IoUs of an evaluation folder, by row of `truth`.

    Raises:
        RunError: the folder holds no evaluation, or one of an earlier version.
    """
    return EvaluatedMasks.of(truth, _read_table(folder, "masks.parquet", "row"), read_ious(folder))


def read_ious(folder: Path) -> pa.Table:
    """The IoU of each instance of an evaluation folder: a table of `IOU_SCHEMA`.

    Raises:
        RunError: the folder holds no evaluation, or one of an earlier version.
    """
    return _read_table(folder, "ious.parquet", *IOU_SCHEMA.names).select(IOU_SCHEMA.names)


def read_detections(folders: Sequence[Path]) -> list[list[Detection]] | None:
    """The COCO results of some evaluation folders; None unless all have some."""
    paths = [folder / RESULTS for folder in folders]
    if not all(path.exists() for path in paths):
        return None
    return [_read_results(path) for path in paths]


def _read_results(path: Path) -> list[Detection]:
    """COCO results, whose fields are looked at before any library that takes them on trust.

    Raises:
        RunError: the file cannot be read or holds something else.
    """
    read_result(path, list[_Result], MOST_LIST_BYTES)
    refuse_edit(path)
    results: list[Detection] = msgspec.json.decode(read_small(path, MOST_LIST_BYTES))
    return results


class _Code(msgspec.Struct):
    """A mask of COCO results."""

    size: tuple[int, int]
    counts: str


class _Result(msgspec.Struct):
    """One of COCO's results."""

    image_id: int
    category_id: int
    score: float
    bbox: tuple[float, float, float, float]
    segmentation: _Code | None = None


def read_record(folder: Path) -> EvaluationRecord:
    """What an evaluation is of.

    Raises:
        RunError: the folder holds no evaluation.
    """
    if not (folder / "evaluation.json").exists():
        raise RunError(f"{folder}: no evaluation; expected a folder that deepmac evaluate wrote")
    return read_result(folder / "evaluation.json", EvaluationRecord)


def _compare_detections(
    truth: Truth,
    a: Sequence[Path],
    b: Sequence[Path],
    elsewhere: frozenset[str],
    named: Named,
    resamples: int,
    seed: int,
    progress: Progress | None,
) -> PairedDetections | None:
    results = read_detections((*a, *b))
    if results is None:
        return None
    segm, bbox = (
        compare_average_precision(
            CocoTruth.of(truth, kind),
            results[: len(a)],
            results[len(a) :],
            shown_elsewhere=elsewhere,
            named=named,
            resamples=min(resamples, MAX_AP_RESAMPLES),
            seed=seed,
            progress=progress,
        )
        for kind in KINDS
    )
    return PairedDetections(segm, bbox)


def _read_table(folder: Path, name: str, *columns: str) -> pa.Table:
    try:
        table = read_rows(folder / name)
        there = table.column_names  # decoded only now: a broken name is no UTF-8
    except READING_FAILS as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{folder / name}: cannot be read ({reason}); expected an evaluation") from None
    if missing := [column for column in columns if column not in there]:
        raise RunError(
            f"{folder / name}: no column {missing[0]}, as an earlier version wrote it; "
            "expected `deepmac evaluate --force`"
        )
    for column in columns:
        got, expected = table.schema.field(column).type, _TYPES.get(column)
        if expected not in (None, got) or (column == "row" and table[column].null_count):
            raise RunError(f"{folder / name}: column {column}: got {got}, expected {expected} in every row")
    refuse_edit(folder / name)
    return table


def seen_elsewhere(folders: Sequence[Path]) -> frozenset[str]:
    """Classes that at least one of some evaluated models saw elsewhere."""
    return frozenset(name for folder in folders for name in read_record(folder).shown_elsewhere)


def splits_of(folders: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """The splits of `evaluation.splits` that some evaluations have in common, of the same classes."""
    first, *others = (read_record(folder).splits for folder in folders)
    return {
        name: members for name, members in first.items() if all(one.get(name) == members for one in others)
    }


def require_one_way(folders: Sequence[Path]) -> None:
    """Refuse evaluations whose mean would be of models that looked, or were cut, in different ways.

    Raises:
        DataError: names two of them. What an earlier version did not record is not compared.
    """
    first, *others = ((folder, read_record(folder).how) for folder in folders)
    for folder, how in others:
        if how.unlike(first[1]):
            raise DataError(
                f"{folder}: evaluated as {how.words}; expected as {first[0]}: {first[1].words} "
                "(deepmac evaluate)"
            )


def _images_of(folder: Path, given: Path | None = None) -> ImageStore | None:
    """The images of an evaluation, or those in a folder that is given, read as the evaluation read them."""
    record = read_record(folder)
    images = given or (_found(folder, record.images, record.images_from_here) if record.images else None)
    return images_at(images, record.exif, record.max_megapixels) if images else None


def _found(folder: Path, absolute: str, from_here: str | None) -> Path:
    """A path that an evaluation names: seen from its folder, if it is there, since a run may have moved with
    its data; else where it was.
    """
    moved = folder.resolve() / from_here if from_here else None
    return moved.resolve() if moved is not None and moved.exists() else Path(absolute)


def truth_of(folders: Sequence[Path]) -> Truth:
    """The validation set of some evaluations, if it is one set and still as it was.

    Raises:
        RunError: a folder holds no evaluation.
        DataError: one was evaluated on something else, or the set has changed since.
    """
    first = read_record(folders[0])
    sizes = _images_of(folders[0])  # for a file that does not say them
    annotations = fetched(_found(folders[0], first.annotations, first.annotations_from_here))
    dataset = Dataset.open(annotations, seen="all", sizes=sizes)
    dataset = dataset.seeing(first.seen + first.hidden)
    truth = dataset.of_hidden(first.hidden) if first.hidden else dataset.for_evaluation()
    _require_evaluated_on(truth, folders)
    return truth


def _require_evaluated_on(truth: Truth, folders: Sequence[Path]) -> None:
    for folder in folders:
        if read_record(folder).annotations_sha256 != truth.fingerprint:
            raise DataError(
                f"{folder}: evaluated on other annotations or seen classes than {truth.path} holds now"
            )
