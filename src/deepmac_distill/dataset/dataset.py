"""An annotation file, parsed once: opened in milliseconds ever after, and seen through views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset import views
from deepmac_distill.dataset.cache import TableCache, read_checked, write_checked
from deepmac_distill.dataset.choice import (
    MIN_MASKS,
    SeenChoice,
    choose_by_masks,
    hidden_names,
    is_by_masks,
    mask_counts,
    trial_folds,
)
from deepmac_distill.dataset.classes import Classes, SeenSpec
from deepmac_distill.dataset.fingerprint import fingerprint_of
from deepmac_distill.dataset.image_entries import SizeSource
from deepmac_distill.dataset.problems import Problem, category_problems
from deepmac_distill.dataset.tables import Tables
from deepmac_distill.dataset.views import TrainingView, Truth
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json

_REFERENCES = ("image_id ", "category_id ")  # how a finding about a reference begins


@dataclass(frozen=True)
class Dataset:
    """A COCO, LVIS v1 or boxes-only file, and of which classes the masks may be seen."""

    path: Path
    classes: Classes
    tables: Tables
    strict: bool  # doubts are errors
    folder: Path  # where the cache keeps the tables
    notes: tuple[str, ...]  # what the user should know

    @classmethod
    def open(
        cls,
        annotations: Path,
        *,
        seen: SeenSpec,
        strict: bool = False,
        min_masks: int = MIN_MASKS,
        sizes: SizeSource | None = None,
        cache: Path | None = None,
    ) -> Dataset:
        """Map the tables of a file into memory; a file that the cache does not know is parsed first.

        Boxes without area stay, with status `degenerate`; boxes over the edge stay as written and are
        counted as `clipped`; polygon parts of fewer than three points are dropped and counted. A mask that
        covers no pixel, or none of its box, counts as no mask, and as an `unusable` one. With `strict` all
        these are refused.

        Args:
            seen: see `classes.seen_names_of`; or `with-masks`, the classes with at least `min_masks` masks,
                which is also what `voc` means where no class of VOC is in the file.
            sizes: images that give the sizes that the file does not.
            cache: folder of the cache; None is `cache.cache_folder()`.

        Raises:
            DataError: the first thing wrong with the file, masks aside: where, what was got, what was
                expected.
        """
        kept = TableCache(cache)
        tables, folder = kept.tables(annotations, sizes)
        for problem in category_problems(tables.categories, str(annotations)):
            raise DataError(str(problem))
        choice = seen_choice(tables, seen, min_masks, str(annotations))
        classes = Classes.from_categories(tables.categories, choice.seen, str(annotations))
        notes = tuple(note for note in (kept.note, choice.note) if note)
        found = cls(annotations, classes, tables, strict, folder, notes)
        found._refuse(np.zeros(len(tables.annotations), dtype=bool), {"entry"})
        return found

    def for_training(self, hide: Collection[str] = ()) -> TrainingView:
        """All boxes, and the masks of seen classes.

        Args:
            hide: seen classes that are treated as unseen.

        Raises:
            DataError: a mask that can be seen has an error.
        """
        classes = self.classes.hiding(hide, str(self.path))
        hidden = views.hidden_rows(self.tables.annotations, classes)
        self._refuse(~hidden, {"mask"})
        drawn = hidden & self.tables.annotations["drawn"].to_numpy()
        annotations = views.hide_masks(self.tables.annotations, hidden)
        counts = views.count(self.tables.images, annotations) | {"hidden_masks": int(drawn.sum())}
        return TrainingView(**self._parts(annotations, classes, counts, "training"))

    def for_evaluation(self, hide: Collection[str] = ()) -> Truth:
        """All boxes and all masks; `hide` names classes that count as unseen, though their masks are here.

        Raises:
            DataError: a mask has an error.
        """
        self._refuse(np.ones(len(self.tables.annotations), dtype=bool), {"mask"})
        counts = views.count(self.tables.images, self.tables.annotations) | {"hidden_masks": 0}
        classes = self.classes.hiding(hide, str(self.path))
        return Truth(**self._parts(self.tables.annotations, classes, counts, "evaluation"))

    def of_hidden(self, hide: Collection[str]) -> Truth:
        """All boxes, and the masks of the classes that `hide` names: what choices may be made by.

        Masks of classes that are unseen anyway are not in it, nor are those that training sees.

        Raises:
            DataError: a mask of a hidden class has an error, or `Classes.hiding` refuses the names.
        """
        return self._masks_of(hide, self.classes.hiding(hide, str(self.path)))

    def of_untaught(self, names: Collection[str]) -> Truth:
        """All boxes, and the masks of these classes, all of which count as unseen: nothing learns from them.

        Raises:
            DataError: a mask of these classes has an error.
        """
        seen = tuple(
            shown and name not in names
            for name, shown in zip(self.classes.names, self.classes.seen, strict=True)
        )
        return self._masks_of(names, replace(self.classes, seen=seen))

    def _masks_of(self, names: Collection[str], classes: Classes) -> Truth:
        ids = [
            number for number, name in zip(classes.category_ids, classes.names, strict=True) if name in names
        ]
        others = ~np.isin(self.tables.annotations["category_id"].to_numpy(), ids)
        self._refuse(~others, {"mask"})
        annotations = views.hide_masks(self.tables.annotations, others)
        counts = views.count(self.tables.images, annotations) | {"hidden_masks": 0}
        return Truth(**self._parts(annotations, classes, counts, "hidden", sorted(names)))

    def seeing(self, names: Collection[str]) -> Dataset:
        """The same file with other seen classes: those of `names` that it has, be it none."""
        seen = tuple(name in names for name in self.classes.names)
        return replace(self, classes=replace(self.classes, seen=seen))

    def hidden_names(self, hide: Sequence[str]) -> tuple[str, ...]:
        """The seen classes that names and folds pick out (see `choice.hidden_names`)."""
        counts = mask_counts(self.tables.annotations, self.classes.category_ids)
        return hidden_names(hide, self.classes, counts, str(self.path))

    def folds(self, folds: int, hide: Collection[str] = ()) -> list[tuple[str, ...]]:
        """Seen classes with masks of people, those of `hide` left out, in folds (see `choice.trial_folds`).

        Raises:
            DataError: there are too few of them, or masks.
        """
        human = self.tables.annotations.filter(pc.equal(self.tables.annotations["source"], "human"))
        counts = mask_counts(human, self.classes.category_ids)
        return trial_folds(self.classes.hiding(hide, str(self.path)), counts, folds, str(self.path))

    def problems(self) -> Iterator[Problem]:
        """All that was found on reading, masks of every class included, in the order of the file."""
        yield from problems_of(self.tables, self.path, strict=self.strict)

    def _refuse(self, visible: NDArray[np.bool_], about: set[str]) -> None:
        """Raise the first error about these things; of masks, those of `visible` rows."""
        for finding in self.tables.findings.to_pylist():
            wrong = finding["level"] == "error" or self.strict
            if (
                wrong
                and finding["about"] in about
                and (finding["about"] == "entry" or visible[finding["row"]])
            ):
                raise DataError(f"{self.path}: {finding['where']}: {finding['message']}")

    def _parts(
        self,
        annotations: pa.Table,
        classes: Classes,
        counts: dict[str, int],
        view: str,
        shown: Sequence[str] = (),
    ) -> dict[str, Any]:
        return {
            "path": self.path,
            "images": self.tables.images,
            "annotations": annotations,
            "classes": classes,
            "counts": counts | self.tables.counts,
            "fingerprint": self._fingerprint(annotations, classes, view, shown),
            "head": self.tables.other | {"categories": self.tables.categories},
        }

    def _fingerprint(self, annotations: pa.Table, classes: Classes, view: str, shown: Sequence[str]) -> str:
        """The hash of a view, kept beside the tables, because it takes a look at every mask.

        Args:
            shown: classes whose masks are in it, where `classes` leave that open.
        """
        about = [self.folder.name, view, classes.names, classes.category_ids, classes.seen]
        of = sha256_of_json([*about, *([shown] if shown else [])])
        path = self.folder / f"{view}-{of[:16]}.json"
        if (kept := read_checked(path)) is not None and kept.get("of") == of:
            return str(kept["fingerprint"])
        found = fingerprint_of(self.tables.images, annotations, classes)
        if self.folder.is_dir():
            write_checked(path, {"of": of, "fingerprint": found})
        return found


def seen_choice(tables: Tables, seen: SeenSpec, min_masks: int, where: str) -> SeenChoice:
    """What to see of a file: `seen` as it is, or names where masks decide.

    Raises:
        DataError: no class has masks enough.
    """
    everything = Classes.from_categories(tables.categories, "all", where)
    if not is_by_masks(seen, everything.names):
        return SeenChoice(seen)
    counts = mask_counts(tables.annotations, everything.category_ids)
    return choose_by_masks(seen, everything.names, counts, min_masks, where)


def problems_of(tables: Tables, path: Path, *, strict: bool) -> Iterator[Problem]:
    """What reading found, as errors and warnings; an image or a category that is missing is one of them."""
    findings = tables.findings.to_pylist()
    references = Counter(one["message"] for one in findings if one["message"].startswith(_REFERENCES))
    named: set[str] = set()
    for finding in findings:
        message, is_error = finding["message"], strict or finding["level"] == "error"
        if message in named:
            continue
        if count := references[message]:
            named.add(message)
            message += f"; {count - 1} more annotations have it" if count > 1 else ""
        yield Problem("error" if is_error else "warning", f"{path}: {finding['where']}", message)
