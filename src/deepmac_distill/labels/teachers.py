"""Which teachers drew the masks of a label file, as its provenance and its rows have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.labels.export import SEEN_MASK_CLASSES, names_or_unknown
from deepmac_distill.labels.table import LABELS_SCHEMA, TEACHER

TEACHERS = "teachers"  # in a provenance: name -> facts about the teacher
MASKS = "masks"  # among these facts, and in those of a unit: class name -> how many it drew
Counts = Mapping[str, Mapping[str, int]]  # teacher -> class -> masks


def teachers_of(provenance: Mapping[str, Any]) -> dict[str | None, Mapping[str, Any]]:
    """Facts about each teacher by its name in the rows; a file that names none has one.

    >>> teachers_of({"teachers": {"recipe": {"teacher": "ab"}}}), teachers_of({"teacher": "ab"})
    ({'recipe': {'teacher': 'ab'}}, {'ab': {'teacher': 'ab'}})
    """
    named = provenance.get(TEACHERS)
    if isinstance(named, Mapping) and named and all(isinstance(facts, Mapping) for facts in named.values()):
        return dict(named)
    return {identity_of(provenance): provenance}


def identity_of(provenance: Mapping[str, Any]) -> str | None:
    """What changes with the masks of a file's only teacher; None where it is not recorded."""
    identity = provenance.get(TEACHER)
    return identity if isinstance(identity, str) else None


def with_teacher(rows: pa.Table, name: str | None) -> pa.Table:
    """Rows that do not name their teacher, with a name in those that have its mask."""
    drawn = pc.equal(rows["source"], "teacher")
    return rows.append_column(
        LABELS_SCHEMA.field(TEACHER),
        pc.if_else(drawn, pa.scalar(name, pa.string()), pa.scalar(None, pa.string())),
    )


def seen_by_any(teachers: Iterable[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """Names of the classes of which one of the teachers saw masks; None where of one nobody knows.

    >>> seen_by_any([{"seen_mask_classes": ["b"]}, {"seen_mask_classes": ["a", "b"]}]), seen_by_any([{}])
    (('a', 'b'), None)
    """
    seen = [names_or_unknown(facts.get(SEEN_MASK_CLASSES)) for facts in teachers]
    known = [names for names in seen if names is not None]
    return tuple(sorted({name for names in known for name in names})) if len(known) == len(seen) else None


def rows_by_teacher(tables: Sequence[pa.Table], wanted: Sequence[NDArray[np.bool_]]) -> pa.Table:
    """Label rows of some boxes, each with what the teacher did that was asked for it.

    Args:
        tables: R rows by each teacher.
        wanted: (R,) which boxes each was asked for, no box twice; what nobody was asked for is alike in all.
    """
    if len(tables) == 1:
        return tables[0]
    whose = np.argmax(np.stack(wanted), axis=0) if len(tables[0]) else np.zeros(0, np.int64)
    place = whose * len(tables[0]) + np.arange(len(tables[0]))
    return pa.concat_tables(tables).take(pa.array(place))


def masks_by_teacher(rows: pa.Table) -> dict[str, dict[str, int]]:
    """How many masks each teacher drew of each class, of some rows."""
    drawn = rows.filter(pc.is_valid(rows[TEACHER]))
    pairs = Counter(zip(drawn[TEACHER].to_pylist(), drawn["category_name"].to_pylist(), strict=True))
    found: dict[str, dict[str, int]] = {}
    for (teacher, name), count in sorted(pairs.items()):
        found.setdefault(teacher, {})[name] = count
    return found


def summed(counts: Iterable[Counts]) -> dict[str, dict[str, int]]:
    """The counts of several units together, by names in their order.

    >>> summed([{"a": {"cat": 1}}, {"b": {"dog": 2}, "a": {"cat": 3}}])
    {'a': {'cat': 4}, 'b': {'dog': 2}}
    """
    found: dict[str, Counter[str]] = {}
    for one in counts:
        for teacher, classes in one.items():
            found.setdefault(teacher, Counter()).update(classes)
    return {teacher: dict(sorted(found[teacher].items())) for teacher in sorted(found)}
