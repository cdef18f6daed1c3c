"""Whether two runs have the same figures to the bit: tensors, columns of label and IoU files, metrics.

For a change of the code that should change no figure: run a pipeline with both versions, on a CPU, with the
same number of threads, and compare the two run directories.

    python benchmarks/same_figures.py runs/before runs/after --rename box_iou=box_baseline_iou

Prints what was compared and each difference; ends with 1 if there is one. Names may change between
versions: `--rename old=new` rewrites a column's or a JSON key's name of the first run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import load_file

Renames = Mapping[str, str]


def differences(before: Path, after: Path, renames: Renames) -> Iterator[str]:
    """One line for each thing that both runs should have and that is not the same."""
    for path in sorted(before.glob("*/*.safetensors")):
        yield from _of_tensors(path, after / path.relative_to(before))
    for path in sorted(before.glob("*/*.parquet")):
        yield from _of_columns(path, after / path.relative_to(before), renames)
    for path in sorted(before.glob("*/summary.json")):
        yield from _of_metrics(path, after / path.relative_to(before), renames)


def _of_tensors(before: Path, after: Path) -> Iterator[str]:
    if not after.exists():
        yield f"{after}: is missing"
        return
    old, new = load_file(before), load_file(after)
    if old.keys() != new.keys():
        yield f"{after}: other tensors: {sorted(old.keys() ^ new.keys())[:5]}"
    differing = [name for name in old.keys() & new.keys() if not old[name].equal(new[name])]
    if differing:
        yield f"{after}: {len(differing)} of {len(old)} tensors differ, such as {min(differing)}"
    print(f"{after}: {len(old)} tensors compared")


def _of_columns(before: Path, after: Path, renames: Renames) -> Iterator[str]:
    if not after.exists():
        yield f"{after}: is missing"
        return
    old, new = pq.read_table(before), pq.read_table(after)
    for name in old.column_names:
        now = renames.get(name, name)
        if now not in new.column_names:
            yield f"{after}: column {name} is gone"
            continue
        values = [renames.get(v, v) if isinstance(v, str) else v for v in old[name].to_pylist()]
        if values != new[now].to_pylist():
            yield f"{after}: column {now} differs"
    print(f"{after}: {len(old.column_names)} columns of {len(old)} rows compared")


def _of_metrics(before: Path, after: Path, renames: Renames) -> Iterator[str]:
    if not after.exists():
        yield f"{after}: is missing"
        return
    old, new = (dict(_numbers(json.loads(p.read_text(encoding="utf-8")), ())) for p in (before, after))
    old = {tuple(renames.get(key, key) for key in path): value for path, value in old.items()}
    gone = sorted(old.keys() - new.keys())
    if gone:
        yield f"{after}: {len(gone)} of {len(old)} figures are gone, such as {'.'.join(gone[0])}"
    for path in sorted(old.keys() & new.keys()):
        if old[path] != new[path] and not (math.isnan(old[path]) and math.isnan(new[path])):
            yield f"{after}: {'.'.join(path)}: {old[path]} became {new[path]}"
    print(f"{after}: {len(old.keys() & new.keys())} figures compared")


def _numbers(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a JSON value, by the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _numbers(inner, (*path, str(position)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def main() -> None:
    """Compare two run directories named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW")
    given = parser.parse_args()
    renames = dict(pair.split("=", 1) for pair in given.rename)
    found = list(differences(given.before, given.after, renames))
    print("\n".join(found) or "no difference")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
