"""`Labels`: masks.parquet as an object, which any of its readers opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepmac_distill.data.dataset import SoftGrid
from deepmac_distill.dataset.parquet import READING_FAILS
from deepmac_distill.dataset.row_batches import row_batches
from deepmac_distill.dataset.tables import mapped
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_file
from deepmac_distill.labels.checks import check_facts, check_grids, check_masks
from deepmac_distill.labels.cut import DEFAULT_CUT, Cut, require_cut
from deepmac_distill.labels.export import SEEN_MASK_CLASSES, names_or_unknown, write_instances_json
from deepmac_distill.labels.quality import QUALITY, QUALITY_LOW, Quality, quick_mark, with_quality
from deepmac_distill.labels.recutting import are_cut_at, recut_rows
from deepmac_distill.labels.rules import Rules
from deepmac_distill.labels.table import LABELS_SCHEMA, TEACHER, provenance_of, require_schema
from deepmac_distill.labels.teachers import identity_of, teachers_of, with_teacher
from deepmac_distill.lattice import Lattice
from deepmac_distill.regular import require_regular

_SOFT = ("soft", "soft_size", "soft_lattice")
_ALL_BUT_SOFT = [name for name in LABELS_SCHEMA.names if name != "soft"]
_AS_READ = pa.schema(
    [
        *(LABELS_SCHEMA.field(name) for name in _ALL_BUT_SOFT),
        *(pa.field(name, pa.float32()) for name in (QUALITY, QUALITY_LOW)),
    ]
)


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Boxes of one class; those without any mask are what is left of `boxes`."""

    name: str
    boxes: int
    human: int  # masks that people drew
    accepted: int  # of the teacher's masks
    rejected: int


@dataclass(frozen=True)
class Labels:
    """A row for every box of a data set: what a teacher drew in it, or why it drew nothing.

    The file holds facts and is never changed. What is decided later, such as another cut, lives here.
    """

    path: Path
    cut: Cut | None = None  # of the teacher's masks; None: that of labeling
    quality: Quality | None = None  # what estimates their IoU; None: nobody, and the two columns are null
    own_cuts: Mapping[str | None, Cut] = field(default_factory=dict)  # of some teachers' masks, by name

    @classmethod
    def open(cls, path: Path) -> Labels:
        """The labels in a file, nothing but its footer read yet.

        Raises:
            DataError: the file cannot be read, is no label file, or is of another schema version.
        """
        with _opened(path) as file:
            require_schema(path, file.schema_arrow)
        return cls(path)

    def __len__(self) -> int:
        """The number of rows."""
        with _opened(self.path) as file:
            return int(file.metadata.num_rows)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file."""
        return sha256_of_file(self.path)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where the labels come from, as the writer stated it.

        Raises:
            DataError: the file holds none.
        """
        with _opened(self.path) as file:
            return provenance_of(self.path, file.schema_arrow)

    @cached_property
    def teachers(self) -> dict[str | None, Mapping[str, Any]]:
        """Facts about each teacher, by its name in the column `teacher`.

        Raises:
            DataError: as `provenance`.
        """
        return teachers_of(self.provenance)

    @property
    def seen_mask_classes(self) -> tuple[str, ...] | None:
        """Names of the classes whose masks the teacher saw; None: nobody knows.

        Raises:
            DataError: as `provenance`.
        """
        return names_or_unknown(self.provenance.get(SEEN_MASK_CLASSES))

    def with_cut(self, cut: Cut) -> Labels:
        """The same labels with the teacher's masks cut elsewhere, when they are read.

        Args:
            cut: a number in [0, 1), or "expected-iou": each mask where its own grid expects the largest IoU,
                and at 0.5 where the grid holds no probabilities.

        Raises:
            ValueError: neither of them.
        """
        return replace(self, cut=require_cut(cut), own_cuts={})

    def with_own_cuts(self, cuts: Mapping[str | None, Cut]) -> Labels:
        """The same labels with the masks of some teachers cut elsewhere than those of the others.

        Args:
            cuts: by the name in the column `teacher`.
        """
        return replace(self, own_cuts={name: require_cut(cut) for name, cut in cuts.items()})

    def cut_of(self, teacher: str | None) -> Cut:
        """Where the masks of a teacher are cut when they are read."""
        cut = self.own_cuts.get(teacher, self.cut)
        return DEFAULT_CUT if cut is None else cut

    def cut_inputs(self) -> dict[str, Any]:
        """The cuts, as what is made of the labels records them."""
        return {
            "labels.cut": self.cut,
            **{f"labels.cut of {name}": cut for name, cut in self.own_cuts.items()},
        }

    def with_quality(self, quality: Quality | None) -> Labels:
        """The same labels with an estimate of each mask's IoU in the columns `quality` and `quality_low`."""
        return replace(self, quality=quality)

    @cached_property
    def table(self) -> pa.Table:
        """All rows in the order of image and annotation, with quality and without soft grids.

        Many rows are in a file without a name that is mapped, so that they take no memory of this process.

        Raises:
            DataError: the file is broken, or its rows do not match its footer.
        """
        return mapped(_AS_READ, self._batches())

    def accepted(self, rules: Rules) -> NDArray[np.bool_]:
        """(N,) rows whose mask is the teacher's and reaches what the rules ask."""
        return rules.accept(self.table)

    def describe(self, rules: Rules) -> list[ClassCounts]:
        """What became of the boxes of each class, by its name in the order of their ids."""
        names = self.table["category_name"].combine_chunks().dictionary_encode()
        classes, n = names.indices.to_numpy(), len(names.dictionary)
        source = np.asarray(self.table["source"])
        accepted = self.accepted(rules)
        kinds = (np.ones(len(classes), bool), source == "human", accepted, (source == "teacher") & ~accepted)
        boxes, human, taken, rejected = (np.bincount(classes[kind], minlength=n).tolist() for kind in kinds)
        ids = self.table["category_id"].to_numpy()
        order = np.argsort([ids[np.argmax(classes == at)] for at in range(n)], kind="stable")
        found = zip(names.dictionary.to_pylist(), boxes, human, taken, rejected, strict=True)
        counts = [ClassCounts(*one) for one in found]
        return [counts[at] for at in order]

    def export_coco(self, source: dict[str, Any], rules: Rules, path: Path) -> dict[str, int]:
        """Write a COCO file of the source's annotations: see `write_instances_json`."""
        mark = quick_mark(self.quality)
        return write_instances_json(source, self.table, rules, path, self.seen_mask_classes, mark)

    def soft_grids(self) -> Iterator[tuple[int, list[SoftGrid | None]]]:
        """The number of the first row, and the soft grids of some rows from there on; never all at once.

        Raises:
            DataError: as `table`.
        """
        first = 0
        for rows in self._read(["annotation_id", *_SOFT]):
            check_grids(self.path, rows.filter(pc.is_valid(rows["soft"])))
            yield (
                first,
                [_soft_grid(*row) for row in zip(*(rows[name].to_pylist() for name in _SOFT), strict=True)],
            )
            first += len(rows)

    def _batches(self) -> Iterator[pa.Table]:
        """Checked rows without soft grids, at the cut."""
        again = self._needs_grids()
        for rows in self._read(LABELS_SCHEMA.names if again else _ALL_BUT_SOFT):
            check_facts(self.path, rows)
            facts = rows
            if again:
                rows = self._recut(rows)
            else:
                check_masks(self.path, rows)
            yield with_quality(rows, self.quality, self.cut_of, facts)

    def _needs_grids(self) -> bool:
        """Whether a teacher's mask was cut elsewhere than is asked for."""
        if self.cut is None and not self.own_cuts:
            return False
        columns = ["cut", "expected_iou", "source", TEACHER]
        held = (rows.filter(pc.is_valid(rows["cut"])) for rows in self._read(columns))
        return not all(are_cut_at(self.cut_of, rows) for rows in held)

    def _recut(self, rows: pa.Table) -> pa.Table:
        """Rows without soft grids, the teacher's masks cut again."""
        by_teacher = np.asarray(pc.equal(rows["source"], "teacher"))
        check_masks(self.path, rows.filter(~by_teacher))
        check_grids(self.path, rows.filter(by_teacher))
        return recut_rows(rows, by_teacher, self.cut_of).select(_ALL_BUT_SOFT)

    def _read(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        schema = pa.schema([LABELS_SCHEMA.field(name) for name in columns])
        with _opened(self.path) as file:
            require_schema(self.path, file.schema_arrow)
            stored = [name for name in columns if name in file.schema_arrow.names]
            batches = row_batches(self.path, file, stored)
            while True:
                try:
                    batch = next(batches, None)
                except READING_FAILS as error:
                    raise _unreadable(self.path, error) from error
                if batch is None:
                    return
                rows = pa.Table.from_batches([batch]).replace_schema_metadata()
                if len(stored) < len(columns):  # of the version before
                    rows = with_teacher(rows, identity_of(self.provenance))
                yield rows.select(schema.names)


def _soft_grid(cells: bytes | None, side: int, lattice: Lattice) -> SoftGrid | None:
    if cells is None:
        return None
    return SoftGrid(np.frombuffer(cells, np.uint8).reshape(side, side), lattice)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        require_regular(path)
        return pq.ParquetFile(path)
    except READING_FAILS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read: {' '.join(str(error).split())}; expected a masks.parquet")
