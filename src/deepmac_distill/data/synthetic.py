"""Generated scenes: textured, overlapping figures with exact masks, to run the whole pipeline anywhere.

Easy: every figure has a thin contour and a texture of its own, so that its edge is visible without its
class, and one seen shape (the chevron) is not convex. Hard: figures hide one another, they are rotated and
stretched, the background has a texture too, and a box alone is a poor mask (about half of an unseen figure's
box is not the figure). Only an unseen shape, the ring, has a hole.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac_distill.files import write_json

Floats = NDArray[np.float64]
Field = Callable[[Floats, Floats], Floats]  # (u, v) in the figure's frame -> negative inside

CONTOUR_PX = 1.3  # width of the contour, inside the figure
MIN_VISIBLE_FRACTION = 0.45  # of every figure, whatever is drawn over it
MIN_VISIBLE_PX = 60  # area of the smallest figure worth a box


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """One figure of a scene and its visible part."""

    name: str
    visible: NDArray[np.bool_]  # (H, W)
    whole_px: int  # area before anything covered it


def write_scenes(folder: Path, *, images: int, seed: int, size_px: int = 128) -> Path:
    """Write `images` scenes under `folder`: `images/000001.png` ... and a COCO file; return the file's path.

    Scene i depends on (`seed`, i, `size_px`) alone: a longer set begins with the shorter one. Masks are the
    visible part of each figure, decided at pixel centers; a box is tight around its mask. Images are written
    one by one and the COCO file last, so a set that has one is complete.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    image_rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, images + 1):
        pixels, figures = draw_scene(np.random.default_rng([seed, image_id]), size_px)
        file_name = f"{image_id:06d}.png"
        Image.fromarray(pixels).save(folder / "images" / file_name, compress_level=3)
        image_rows.append({"id": image_id, "file_name": file_name, "height": size_px, "width": size_px})
        for annotation in _annotations(figures, image_id):
            annotations.append({"id": len(annotations) + 1, **annotation})
    categories = [{"id": id, "name": name} for name, id in _CATEGORY_IDS.items()]
    path = folder / "instances.json"
    write_json(path, {"images": image_rows, "annotations": annotations, "categories": categories})
    return path


def draw_scene(rng: np.random.Generator, size_px: int) -> tuple[NDArray[np.uint8], list[Figure]]:
    """One scene: (H, W, 3) uint8 RGB pixels and its 3 to 7 figures, the nearest one last."""
    canvas = _background(rng, size_px)  # (H, W, 3) in [0, 1]
    figures: list[Figure] = []
    wanted = int(rng.integers(3, 8))
    for _ in range(3 * wanted):
        if len(figures) == wanted:
            break
        name = SCENE_CLASSES[rng.integers(len(SCENE_CLASSES))]
        distance = _signed_distance(rng, _SHAPES[name], size_px)  # (H, W) px, negative inside
        inside = distance <= 0
        uncovered = [Figure(f.name, f.visible & ~inside, f.whole_px) for f in figures]
        figure = Figure(name, inside, int(inside.sum()))
        if all(_stays_visible(f) for f in (*uncovered, figure)):
            figures = [*uncovered, figure]
            _paint(rng, canvas, distance)
    return (canvas * 255 + 0.5).astype(np.uint8), figures


def _stays_visible(figure: Figure) -> bool:
    return int(figure.visible.sum()) >= max(MIN_VISIBLE_PX, MIN_VISIBLE_FRACTION * figure.whole_px)


def _annotations(figures: list[Figure], image_id: int) -> Iterator[dict[str, Any]]:
    for figure in figures:
        rle = coco_mask.encode(np.asfortranarray(figure.visible.astype(np.uint8)))
        yield {
            "image_id": image_id,
            "category_id": _CATEGORY_IDS[figure.name],
            "bbox": coco_mask.toBbox(rle).tolist(),
            "area": int(figure.visible.sum()),
            "iscrowd": 0,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        }


def _signed_distance(rng: np.random.Generator, shape: Field, size_px: int) -> Floats:
    """Distance to the edge of a figure at a random place, rotation and stretch: (H, W) px, negative inside.

    First order, field over slope: near the edge, where it is drawn, good to a fraction of a pixel.
    """
    radius = size_px * rng.uniform(0.12, 0.27)
    cx, cy = rng.uniform(0.1 * size_px, 0.9 * size_px, 2)
    stretch, turn = np.exp(rng.uniform(-0.25, 0.25)), rng.uniform(0, 2 * np.pi)
    centers = np.arange(size_px) + 0.5
    x, y = (centers[None, :] - cx) / radius, (centers[:, None] - cy) / radius
    u = (np.cos(turn) * x + np.sin(turn) * y) / stretch
    v = (np.cos(turn) * y - np.sin(turn) * x) * stretch
    field = shape(u, v)
    slope_y, slope_x = np.gradient(field)
    distance: Floats = field / np.maximum(np.hypot(slope_x, slope_y), 1e-3 / radius)
    return distance


def _paint(rng: np.random.Generator, canvas: Floats, distance: Floats) -> None:
    """Draw one figure onto the canvas: a texture of two near colors inside a contour, edges smoothed."""
    touched = distance < 0.5
    rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    distance = distance[window][..., None]  # (h, w, 1): only here is there anything to paint
    hue, light = rng.uniform(), rng.uniform(0.45, 0.95)
    light_side = _rgb(hue, rng.uniform(0.45, 0.9), light)
    dark_side = _rgb(hue + rng.uniform(-0.1, 0.1), 0.6, 0.7 * light)
    inner = dark_side + _texture(rng, *distance.shape[:2])[..., None] * (light_side - dark_side)
    contour = _rgb(hue, 0.7, 0.12) if light > 0.6 or rng.uniform() < 0.5 else _rgb(hue, 0.15, 1.0)
    cover = np.clip(0.5 - distance, 0, 1)
    core = np.clip(0.5 - (distance + CONTOUR_PX), 0, 1)
    canvas[window] = canvas[window] * (1 - cover) + contour * (cover - core) + inner * core


def _background(rng: np.random.Generator, size_px: int) -> Floats:
    """(H, W, 3) in [0, 1]: soft blotches of muted colors under a weave and grain."""
    knots = np.stack([_rgb(rng.uniform(), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.8)) for _ in range(16)])
    blotches = _smooth(knots.reshape(4, 4, 3), size_px, size_px)
    weave = rng.uniform(0.1, 0.3) * (_texture(rng, size_px, size_px)[..., None] - 0.5)
    return np.clip(blotches + weave + rng.normal(0, 0.025, (size_px, size_px, 1)), 0, 1)


def _texture(rng: np.random.Generator, height: int, width: int) -> Floats:
    """(H, W) in [0, 1]: stripes, checks, dots or clouds, at a random scale and angle."""
    kind = rng.integers(4)
    if kind == 3:
        return _smooth(rng.uniform(0, 1, (2 + height // 6, 2 + width // 6, 1)), height, width)[..., 0]
    turn, period_px = rng.uniform(0, np.pi), rng.uniform(4, 12)
    y, x = np.mgrid[:height, :width] * (2 * np.pi / period_px)
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    match kind:
        case 0:
            waves = np.sin(along)
        case 1:
            waves = np.sin(along) * np.sin(across)
        case _:
            waves = np.cos(along) + np.cos(across) - 0.6
    texture: Floats = 1 / (1 + np.exp(-3 * waves))
    return texture


def _smooth(knots: Floats, height: int, width: int) -> Floats:
    """(J, K, C) knots, bilinear to (H, W, C)."""
    rows, columns = _hats(len(knots), height), _hats(knots.shape[1], width)
    smooth: Floats = np.einsum("yj,xk,jkc->yxc", rows, columns, knots, optimize=True)
    return smooth


def _hats(knots: int, samples: int) -> Floats:
    """(samples, knots) linear interpolation weights."""
    at = np.linspace(0, knots - 1, samples)
    distance: Floats = np.abs(at[:, None] - np.arange(knots))
    return np.maximum(0, 1 - distance)


def _rgb(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _polygon(*points: tuple[float, float]) -> Field:
    """Signed distance to a simple polygon."""

    def field(u: Floats, v: Floats) -> Floats:
        nearest: Floats = np.full(u.shape, np.inf)
        sign: Floats = np.full(u.shape, 1.0)
        for (au, av), (bu, bv) in zip(points, (*points[1:], points[0]), strict=True):
            eu, ev, wu, wv = bu - au, bv - av, u - au, v - av
            t = np.clip((wu * eu + wv * ev) / (eu * eu + ev * ev), 0, 1)
            nearest = np.minimum(nearest, (wu - t * eu) ** 2 + (wv - t * ev) ** 2)
            left_of_edge = (eu * wv > ev * wu) == (bv > av)
            sign = np.where(((v >= av) != (v >= bv)) & left_of_edge, -sign, sign)
        return sign * np.sqrt(nearest)

    return field


def _disc(radius: float, u0: float = 0.0) -> Field:
    return lambda u, v: np.hypot(u - u0, v) - radius


def _both(a: Field, b: Field) -> Field:
    return lambda u, v: np.maximum(a(u, v), b(u, v))


def _without(a: Field, b: Field) -> Field:
    return lambda u, v: np.maximum(a(u, v), -b(u, v))


def _bar(u: Floats, v: Floats) -> Floats:
    return np.hypot(np.maximum(np.abs(u) - 0.7, 0), v) - 0.3


def _drop(u: Floats, v: Floats) -> Floats:
    """A disc drawn out to a point: the radius shrinks along the axis."""
    t = np.clip((u + 0.4) / 1.4, 0, 1)
    return np.hypot(u - (1.4 * t - 0.4), v) - 0.6 * (1 - t)


def _heart(u: Floats, v: Floats) -> Floats:
    """The sextic heart curve, its sixth power taken down to a length."""
    x, y = 1.15 * u, 1.15 * v + 0.1
    ball = x * x + y * y - 1
    return np.cbrt(ball**3 - x * x * y**3)


def _star() -> Field:
    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, 0.45, 1.0)
    return _polygon(*zip(radii * np.cos(angles), radii * np.sin(angles), strict=True))


_SEEN: dict[str, Field] = {
    "ellipse": lambda u, v: np.hypot(u, 1.5 * v) - 1,
    "triangle": _polygon((0.95, 0.0), (-0.6, 0.85), (-0.6, -0.85)),
    "bar": _bar,
    "half disc": _both(_disc(1.0), lambda u, v: -u - 0.1),
    "drop": _drop,
    "chevron": _polygon((1.0, 0.0), (0.1, 0.9), (-0.7, 0.9), (0.1, 0.0), (-0.7, -0.9), (0.1, -0.9)),
}
_UNSEEN: dict[str, Field] = {
    "star": _star(),
    "crescent": _without(_disc(1.0), _disc(0.85, 0.55)),
    "ring": _without(_disc(0.95), _disc(0.5)),
    "heart": _heart,
    "cross": _polygon(
        *[(0.35, 0.35), (0.35, 1.0), (-0.35, 1.0), (-0.35, 0.35), (-1.0, 0.35), (-1.0, -0.35)],
        *[(-0.35, -0.35), (-0.35, -1.0), (0.35, -1.0), (0.35, -0.35), (1.0, -0.35), (1.0, 0.35)],
    ),
    "arrow": _polygon(
        *[(1.0, 0.0), (0.1, 0.85), (0.1, 0.35), (-0.95, 0.35), (-0.95, -0.35), (0.1, -0.35), (0.1, -0.85)]
    ),
}
_SHAPES = _SEEN | _UNSEEN
SEEN_SHAPES = tuple(_SEEN)
UNSEEN_SHAPES = tuple(_UNSEEN)
SCENE_CLASSES = tuple(sorted(_SHAPES))  # by name, so that an id does not reveal which classes are seen
_CATEGORY_IDS = {name: 1 + i for i, name in enumerate(SCENE_CLASSES)}
