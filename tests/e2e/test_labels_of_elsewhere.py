"""`deepmac student --labels masks.parquet`: whose file it is, what it may hold, and how its masks count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from deepmac_distill.labels.table import SCHEMA_VERSION

FEW = ["--set", "student.train.steps=2"]


@pytest.fixture
def run(run_copy) -> Path:
    """A copy of the run without its student."""
    return run_copy("student", "evaluate-student", "report", "select")


@pytest.fixture
def teach(run: Path, deepmac) -> Callable[..., Any]:
    """The run's student, from its own labels or another file's."""

    def student(labels: Path | None, *more: str) -> Any:
        return deepmac("student", "--out", run, *(["--labels", labels] if labels else []), *more)

    return student


def rewritten(run: Path, path: Path, version: bytes = str(SCHEMA_VERSION).encode(), **columns: Any) -> Path:
    """The run's labels with other columns, or under another version."""
    table = pq.read_table(run / "pseudolabel" / "masks.parquet")
    for name, value in columns.items():
        place, field = table.schema.get_field_index(name), table.schema.field(name)
        values = [value, *table[name].to_pylist()[1:]]
        table = table.set_column(place, field, pa.array(values, field.type))
    metadata = table.schema.metadata | {b"deepmac_distill.schema_version": version}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": b"1"}, "label schema version: got 1, expected 5; label again with this version"),
        ({"annotation_id": 10**6}, "labels: annotation 1: no row; expected one for every annotation"),
        ({"bbox": [0.0, 0.0, 1.0, 1.0]}, "labels: annotation 1: bbox: got [0.0, 0.0, 1.0, 1.0]"),
        ({"mask_score": 7.0}, "annotation 1: mask_score: got 7.0, expected 0 to 1"),
        ({"rle_counts": b"~~~~"}, "annotation 1: rle_counts: got 4 bytes, expected a COCO code"),
    ],
)
def test_labels_that_do_not_fit_are_refused(run, teach, tmp_path, change: dict[str, Any], says: str) -> None:
    ended = teach(rewritten(run, tmp_path / "masks.parquet", **change))
    assert ended.code == 2 and says in ended.err.splitlines()[-1]
    assert not (run / "student").exists()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}"])
def test_what_is_no_label_file_is_refused(teach, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "masks.parquet").write_bytes(content)
    for path in (tmp_path / "masks.parquet", tmp_path / "absent.parquet"):
        ended = teach(path)
        assert ended.code == 2 and "cannot be read" in ended.err.splitlines()[-1]


@pytest.mark.parametrize("option", ["labels.mask_weight=expected_iou", "labels.targets=soft"])
def test_an_option_changes_what_the_student_learns_and_is_named(run, teach, option: str) -> None:
    assert teach(None, *FEW).code == 0
    before = load_file(run / "student" / "weights.safetensors")
    ended = teach(None, *FEW, "--set", option)
    key, _, value = option.partition("=")
    assert ended.code == 2 and f"student was made with {key} = None, now {value!r}" in ended.err
    assert teach(None, *FEW, "--set", option, "--force").code == 0
    after = load_file(run / "student" / "weights.safetensors")
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["labels.mask_weight=score"], "labels.mask_weight: got 'score', expected one of none, mask_score"),
        (["labels.targets=blurred"], "labels.targets: got 'blurred', expected one of hard, soft"),
        (["labels.targets=soft", "labels.soft=false"], "labels.soft: got False, expected true for targets"),
    ],
)
def test_options_that_nobody_knows_are_refused(teach, given: list[str], says: str) -> None:
    ended = teach(None, *(word for one in given for word in ("--set", one)))
    assert ended.code == 2 and says in ended.err.splitlines()[-1]


def test_our_exported_file_says_that_it_is_ours(chain) -> None:
    document = json.loads((chain[0] / "select" / "instances.json").read_text())
    assert document["deepmac_distill"]["schema"] == SCHEMA_VERSION
