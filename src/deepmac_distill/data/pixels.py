"""Pixels of any depth become bytes: scaled, never cut off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16, 20, 24, 32)  # bits that cameras and scanners write


def rgb_of(image: Image.Image, turn: Image.Transpose | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of an opened image.

    Integers of 16 or 32 bits are scaled by the smallest depth of `DEPTHS` that holds the largest pixel, so
    that 12 bits in a file of 16 keep their upper 8; floats from 0 to 1 are scaled by 255, larger ones as
    integers are. Pillow alone would cut all of these at 255.

    Args:
        turn: how to turn it.

    Raises:
        ValueError: a pixel is negative or not finite, or 16 bits a channel hold 12 or less: Pillow keeps the
            upper 8 alone.

    >>> rgb_of(Image.fromarray(np.array([[0, 1024, 4095]], np.uint16)))[..., 0].tolist()
    [[0, 64, 255]]
    """
    deep = _has_deep_channels(image)  # it is forgotten once the image is decoded
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_bytes_of(np.asarray(image))[..., None], 3, axis=2)
    pixels = np.array(image.convert("RGB"))
    if deep and 0 < pixels.max() < 16:
        raise ValueError(
            f"16 bits a channel, of which the upper 8 reach {pixels.max()} of 255: write it with 8 bits"
        )
    return pixels


def _has_deep_channels(image: Image.Image) -> bool:
    """Whether several channels have 16 bits each; known until the image is decoded."""
    modes = (
        tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in getattr(image, "tile", ()) if tile[3]
    )
    return any(";16" in str(mode) for mode in modes)


def _bytes_of(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite; expected numbers from 0")
    if values.min() < 0:
        raise ValueError(f"pixels from {values.min():g} to {values.max():g}; expected numbers from 0")
    if pixels.dtype.kind == "f" and values.max() <= 1:
        return np.asarray(values * 255 + 0.5, dtype=np.uint8)
    bits = next((depth for depth in DEPTHS if values.max() < 2**depth), None)
    if bits is None:
        raise ValueError(f"pixels up to {values.max():g}; expected less than 2 to the power of {DEPTHS[-1]}")
    return np.asarray(values // 2 ** (bits - 8), dtype=np.uint8)
