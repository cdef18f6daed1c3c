"""The paper's plots of ours, as SVG: figure 3 (heads and depth), 5a (bars) and 5b (source by target).

Drawn by hand: three plots of lines, bars and squares are less than a plotting library would bring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.experiments.paper_page import RowResult, TableResult
from deepmac_distill.experiments.paper_tables import PaperTable

COLORS = ("#1b6ca8", "#c8553d", "#4d8b31", "#8a4f9e", "#b8860b")
WIDTH, HEIGHT, LEFT, TOP = 520, 300, 60, 40
ALL_CLASSES = "all classes"  # the row that saw the target's masks too: figure 5b divides by it
CELL = 12

Floats = NDArray[np.float64]


def plots_of(of: PaperTable, found: TableResult) -> dict[str, str]:
    """File name -> SVG of the plots that a table has and whose rows are there."""
    if of.id == "figure-3":
        return {"figure-3.svg": heads_plot(of, found)} if any(row.ours for row in found.rows) else {}
    if of.id != "appendix-c":
        return {}
    made = {"figure-5a.svg": bars_plot(of, found)} if any(row.ours for row in found.rows) else {}
    ratios, sources, targets = pair_ratios(of, found)
    return made | ({"figure-5b.svg": pairs_plot(ratios, sources, targets)} if sources and targets else {})


def heads_plot(of: PaperTable, found: TableResult) -> str:
    """Figure 3: a line a family of heads, depth against the figure of seen and of unseen classes."""
    family = {row.label: row.family for row in of.rows}
    panels = []
    for place, split in enumerate(("seen", "unseen")):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in found.rows:
            figure = row.ours.figures.get(split) if row.ours else None
            if figure is not None and figure.value is not None:
                depth = float(row.label.rsplit(" ", 1)[1])
                lines.setdefault(family[row.label], []).append((depth, 100 * figure.value))
        panels.append(_lines(f"{split}: {found.our_measure}", lines, place * (HEIGHT + TOP)))
    return _svg(WIDTH + 180, 2 * (HEIGHT + TOP), panels)


def bars_plot(of: PaperTable, found: TableResult) -> str:
    """Figure 5a: one bar a source class, the best first; dashed, what they are compared with."""
    shown = [row for row in found.rows if row.ours and not row.same_as]
    values = {row.label: value for row in shown if (value := _percent(row, "figures")) is not None}
    baselines = _baselines(of)
    bars = sorted(((name, values[name]) for name in values.keys() - baselines), key=lambda bar: -bar[1])
    lines = {name: values[name] for name in values.keys() & baselines} | _ellipse(shown)
    ends = [*values.values(), *lines.values()]
    low = 0.0 if min(ends) < 20 else 10 * (min(ends) // 10 - 1)
    scale = 300 / (max(ends) - low)
    parts = [_text(LEFT, 20, f"{found.our_measure}, axis from {low:.0f} %")]
    for place, (name, value) in enumerate(bars):
        y, length = TOP + place * 18, scale * (value - low)
        parts.append(_text(130, y + 11, name, "end"))
        parts.append(f'<rect x="135" y="{y}" width="{length:.1f}" height="13" fill="{COLORS[0]}"/>')
        beside = (140 + length, "start", "black") if length < 40 else (131 + length, "end", "white")
        parts.append(_text(beside[0], y + 11, f"{value:.1f}", *beside[1:]))
    bottom = TOP + 18 * len(bars)
    for place, (name, value) in enumerate(sorted(lines.items(), key=lambda line: line[1])):
        x, y = 135 + scale * (value - low), bottom + 14 * (place + 1)
        stroke = f'stroke="{COLORS[1]}" stroke-dasharray="4 3" fill="none"'
        parts.append(f'<path d="M{x:.1f} {TOP}V{y - 10}" {stroke}/>')
        parts.append(_text(x, y, f"{name} {value:.1f}", "middle"))
    return _svg(WIDTH, bottom + 14 * len(lines) + 10, parts)


def _baselines(of: PaperTable) -> set[str]:
    return {row.label for row in of.rows if row.baseline}


def _percent(row: RowResult, kind: Literal["figures", "over_ellipse"]) -> float | None:
    figure = getattr(row.ours, kind).get(row.split) if row.ours else None
    return None if figure is None or figure.value is None else 100 * figure.value


def _ellipse(rows: Sequence[RowResult]) -> dict[str, float]:
    """What an ellipse that fills the box reaches, in percent, where masks in boxes were measured."""
    for row in rows:
        model, lead = _percent(row, "figures"), _percent(row, "over_ellipse")
        if model is not None and lead is not None:
            return {"ellipse": model - lead}
    return {}


def pair_ratios(of: PaperTable, found: TableResult) -> tuple[Floats, list[str], list[str]]:
    """Figure 5b: figure of a target class of the model that saw one source class / of that which saw all.

    Rows and columns are clustered and ratios truncated at 1, as in the paper.

    Returns:
        (S, T) ratios, the S sources and the T targets; nothing of either where no row is there.
    """
    rows = {row.label: row for row in found.rows if row.ours and row.ours.per_class and not row.same_as}
    whole = rows.pop(ALL_CLASSES, None)
    rows = {name: row for name, row in rows.items() if name not in _baselines(of)}
    if whole is None or whole.ours is None or not rows:
        return np.zeros((0, 0)), [], []
    shown = {row.label for row in of.rows}
    targets = [name for name, value in whole.ours.per_class.items() if value and name not in shown]
    of_all = whole.ours.per_class
    values = np.array(
        [[_ratio(row.ours.per_class, of_all, name) for name in targets] for row in rows.values() if row.ours]
    )
    by_row, by_column = clustered(values), clustered(values.T)
    sources = list(rows)
    return values[by_row][:, by_column], [sources[i] for i in by_row], [targets[i] for i in by_column]


def clustered(values: Floats) -> list[int]:
    """An order of rows (N, D) in which alike ones stand together: average linkage of Euclidean distances.

    >>> clustered(np.array([[0.0], [5.0], [0.1], [5.2]]))
    [0, 2, 1, 3]
    """
    groups = [[i] for i in range(len(values))]
    apart = np.linalg.norm(values[:, None] - values[None], axis=-1)
    while len(groups) > 1:
        means = {
            (a, b): float(apart[np.ix_(groups[a], groups[b])].mean())
            for a, b in combinations(range(len(groups)), 2)
        }
        first, second = min(means, key=means.__getitem__)
        groups[first] += groups.pop(second)
    return groups[0] if groups else []


def pairs_plot(ratios: Floats, sources: Sequence[str], targets: Sequence[str]) -> str:
    """Source classes as rows, target classes as columns; dark is a ratio of 1."""
    left, top = 100, 110
    parts = [_text(left, 14, "share of the model that saw masks of all classes: light 0.5 or less, dark 1")]
    for i, name in enumerate(sources):
        parts.append(_text(left - 5, top + i * CELL + 10, name, "end"))
    for j, name in enumerate(targets):
        x = left + j * CELL + 9
        parts.append(f'<g transform="translate({x},{top - 4}) rotate(-60)">{_text(0, 0, name)}</g>')
    for (i, j), ratio in np.ndenumerate(ratios):
        shade = round(255 - 200 * min(max((ratio - 0.5) / 0.5, 0.0), 1.0))
        parts.append(
            f'<rect x="{left + j * CELL}" y="{top + i * CELL}" width="{CELL}" height="{CELL}" '
            f'fill="rgb({shade},{shade},255)"><title>{escape(f"{sources[i]} to {targets[j]}: {ratio:.2f}")}'
            "</title></rect>"
        )
    return _svg(left + CELL * len(targets) + 60, top + CELL * len(sources) + 10, parts)


def _ratio(of_source: Mapping[str, float | None], of_all: Mapping[str, float | None], name: str) -> float:
    return min((of_source.get(name) or 0.0) / (of_all[name] or 1.0), 1.0)


def _lines(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], down: int) -> str:
    points = [point for line in lines.values() for point in line]
    if not points:
        return _text(LEFT, down + 20, f"{title}: nothing was run")
    xs, ys = zip(*points, strict=True)
    low, high = min(ys) - 1, max(ys) + 1
    right = max(xs) + 2

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + (WIDTH - LEFT) * x / right, down + TOP + (HEIGHT - TOP) * (high - y) / (high - low)

    parts = [_text(LEFT, down + 20, title)]
    for tick in range(int(low) + 1, int(high) + 1):
        x, y = at(0, tick)
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, str(tick), "end"))
    for depth in sorted(set(xs)):
        parts.append(_text(at(depth, low)[0], down + HEIGHT + 14, f"{depth:.0f}", "middle"))
    for color, (name, line) in zip(COLORS, lines.items(), strict=False):
        ends = [at(*point) for point in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in ends)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in ends]
        parts.append(_text(ends[-1][0] + 8, ends[-1][1] + 4, name))
    return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start", fill: str = "black") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
    return "\n".join([head + 'font-family="sans-serif" font-size="11">', *parts, "</svg>", ""])
