"""Which number stands for which image, category and annotation, whatever the file calls them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.dataset.findings import Finding
from deepmac_distill.dataset.problems import expected_whole, is_id, shown

Ints = NDArray[np.int64]


def numbering(ids: Sequence[Any]) -> dict[Any, int]:
    """A number for each id where all are strings, or one is too large for 64 bits; else nothing.

    Strings that are whole numbers keep their values; others are numbered in alphabetical order, and large
    numbers by size, so that the order of the file does not matter.

    >>> numbering(["7", "12"]), numbering(["b", "a", "a"]), numbering([7, "12"])
    ({'12': 12, '7': 7}, {'a': 1, 'b': 2}, {})
    >>> numbering([2**64, 5, 5])
    {5: 1, 18446744073709551616: 2}
    """
    if not ids or type(ids[0]) not in (str, int):
        return {}
    if type(ids[0]) is int:
        large = set(map(type, ids)) == {int} and not all(map(is_id, (min(ids), max(ids))))
        return dict(zip(sorted(set(ids)), count(1), strict=False)) if large else {}
    if any(type(i) is not str for i in ids):
        return {}
    distinct = sorted(set(ids))
    if all(text.isdecimal() and str(int(text)) == text and is_id(int(text)) for text in distinct):
        return {text: int(text) for text in distinct}
    return dict(zip(distinct, count(1), strict=False))


def numbered(ids: Sequence[Any], numbers: dict[Any, int]) -> Sequence[Any]:
    """`ids` with those replaced that `numbers` names."""
    return [numbers.get(i, i) if type(i) in (str, int) else i for i in ids] if numbers else ids


def whole_numbers(values: Sequence[Any], bits: int = 64) -> tuple[Ints, NDArray[np.bool_]]:
    """(N,) int64 and where they are whole numbers of so many bits; 0 elsewhere."""
    if set(map(type, values)) <= {int}:
        try:
            found = np.array(values, dtype=np.int64).reshape(-1)
            if bits == 64 or ((found >= -(2 ** (bits - 1))) & (found < 2 ** (bits - 1))).all():
                return found, np.ones(len(found), dtype=bool)
        except OverflowError:
            pass
    valid = np.array([is_id(value, bits) for value in values], dtype=bool)
    kept = [value if ok else 0 for value, ok in zip(values, valid, strict=True)]
    return np.array(kept, dtype=np.int64), valid


def refused_ids(entries: Sequence[dict[str, Any]], bits: int = 64) -> frozenset[float]:
    """Ids of images or categories that are numbers, and not such as an id may be.

    >>> refused_ids([{"id": 1.0}, {"id": 2}, {"id": "3"}])
    frozenset({1.0})
    """
    given: Iterator[Any] = (entry.get("id") for entry in entries)
    return frozenset(one for one in given if type(one) in (int, float) and not is_id(one, bits))


@dataclass(frozen=True, slots=True)
class AnnotationIds:
    """A number for each annotation, used once, and what was wrong with the file's own."""

    ids: Ints  # (N,) unique
    findings: list[tuple[int, Finding]]  # position in the file, and what
    renumbered: int


def annotation_ids(ids: Sequence[Any]) -> AnnotationIds:
    """Number annotations: those without an id, and all but the first of the same id, get free numbers."""
    found, valid = whole_numbers(numbered(ids, numbering(ids)))
    first = np.zeros(len(found), dtype=bool)
    own = np.flatnonzero(valid)
    first[own[np.unique(found[own], return_index=True)[1]]] = True
    findings: list[tuple[int, Finding]] = []
    free = count(max(int(found.max(initial=0)) + 1, 1))
    for position in np.flatnonzero(~first).tolist():
        findings.append((position, _id_finding(ids[position], bool(valid[position]))))
        found[position] = next(free)
    refused = sum(finding.level == "error" for _, finding in findings)
    return AnnotationIds(found, findings, len(findings) - refused)


def _id_finding(value: Any, valid: bool) -> Finding:
    if valid:
        return Finding("doubt", "entry", "its id is used twice; expected one annotation per id")
    if value is None:
        return Finding("doubt", "entry", "no id; expected one")
    return Finding("error", "entry", f"id {shown(value)}: {expected_whole(value)}")
