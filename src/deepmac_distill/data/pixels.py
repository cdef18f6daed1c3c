"""Pixels of any depth become bytes: scaled, never cut off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16, 20, 24, 32)  # bits that cameras and scanners write
_PHOTOMETRIC, _COMPRESSION, _INK_SET, _SAMPLE_FORMAT, _SUBSAMPLING = 262, 259, 332, 339, 530  # tags of TIFF
_WHITE_IS_ZERO, _SEPARATED, _YCBCR, _SIGNED, _CMYK = 0, 5, 6, 2, 1  # their values


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


def misread(image: Image.Image) -> str:
    """What of an opened image Pillow does not heed, so that its pixels would mean something else; else empty.

    TIFF 6.0, sections 8, 16, 19 and 21; Adobe's technical note 5116 for JPEG.
    """
    if image.format == "JPEG":
        unmarked = image.mode == "CMYK" and "adobe" not in image.info
        return "CMYK without Adobe's marker, which states whether inks are inverted" if unmarked else ""
    tags = getattr(image, "tag_v2", None) or {}
    color = tags.get(_PHOTOMETRIC)
    if color == _WHITE_IS_ZERO and (image.mode.startswith("I") or image.mode == "F"):
        return "white is zero (PhotometricInterpretation 0) in more than 8 bits"
    if image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        return "signed pixels of 8 bits (SampleFormat 2)"
    if color == _YCBCR and tags.get(_COMPRESSION, 1) == 1 and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        return "YCbCr with colors at another resolution (YCbCrSubSampling), not compressed"
    if color == _SEPARATED and tags.get(_INK_SET, _CMYK) != _CMYK:
        return "inks that are not CMYK (InkSet 2)"
    return ""


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
