from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmac_distill.data.augment import View, evaluation_view, training_view
from deepmac_distill.data.loader import training_keys
from deepmac_distill.geometry.boxes import has_area

SIDES = st.integers(1, 700)
SHARES = st.tuples(*[st.floats(-0.5, 1.5)] * 4)


@st.composite
def views(draw: st.DrawFn) -> View:
    height, width, size_px = draw(SIDES), draw(SIDES), draw(st.integers(1, 512))
    if draw(st.booleans()):
        return evaluation_view(height, width, size_px)
    return training_view(np.random.default_rng(draw(st.integers(0, 1000))), height, width, size_px=size_px)


def box_of(view: View, shares: tuple[float, ...]) -> np.ndarray:
    x, y = sorted(shares[:2]), sorted(shares[2:])
    return np.array([[x[0] * view.width, y[0] * view.height, x[1] * view.width, y[1] * view.height]])


@given(views(), SHARES)
def test_the_crop_fills_its_place_on_the_canvas_and_middles_stay_middles(
    view: View, shares: tuple[float, ...]
) -> None:
    height, width = view.fit
    assert np.allclose(view.to_canvas(np.array([view.crop], dtype=float)), [[0, 0, width, height]])
    inner = view.to_canvas(box_of(view, shares))
    mirrored = view.to_canvas(
        np.sum([view.crop[:2], view.crop[2:]], axis=0)[[0, 1, 0, 1]] - box_of(view, shares)
    )
    assert np.allclose(inner + mirrored, [[width, height, width, height]], atol=1e-6)


@given(views(), SHARES)
def test_a_visible_box_lies_on_the_canvas_and_in_the_image(view: View, shares: tuple[float, ...]) -> None:
    visible = view.clip(box_of(view, shares))
    visible = visible[has_area(visible)]
    canvas = view.to_canvas(visible)
    assert (visible >= 0).all() and (visible <= np.tile([view.width, view.height], 2)).all()
    assert (canvas >= -1e-9).all() and (canvas <= np.tile(view.fit[::-1], 2) + 1e-9).all()
    assert has_area(canvas).all()


@given(views(), SHARES)
def test_clipping_twice_is_clipping_once(view: View, shares: tuple[float, ...]) -> None:
    visible = view.clip(box_of(view, shares))
    assert np.array_equal(view.clip(visible), visible)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_every_image_is_drawn_once_before_any_is_drawn_again(images: int, batch_size: int, seed: int) -> None:
    steps = range(2 * images // batch_size + 2)
    keys = [key for step in steps for key in training_keys(images, batch_size, seed, step)]
    for epoch in (0, 1):
        assert sorted(keys[epoch * images : (epoch + 1) * images]) == [(i, epoch) for i in range(images)]
