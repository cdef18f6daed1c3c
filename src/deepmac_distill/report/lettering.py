"""Text on pictures: Pillow's own font, and what stands for characters that it lacks."""

from __future__ import annotations

import unicodedata
from functools import cache

from PIL import ImageFont

ESCAPED = r"Characters that the font lacks are escaped: \u30e4 is U+30E4."
_NO_CHARACTER = "\U0010ffff"  # drawn as the font draws what it lacks
_PROBE_PX = 20


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: nothing to install, the same on every machine."""
    return ImageFont.load_default(size)


def drawable(text: str) -> str:
    r"""The text in characters that the font has: others lose their accents, else they are escaped.

    >>> drawable("naïve cat"), drawable("ヤク"), drawable("ṥ")
    ('naive cat', '\\u30e4\\u30af', 's')
    """
    return "".join(_drawable(character) for character in text)


def is_escaped(text: str) -> bool:
    """Whether some characters of a text stand as escapes on a picture."""
    return any(_drawable(character).startswith("\\") and character != "\\" for character in text)


@cache
def _drawable(character: str) -> str:
    if _has_glyph(character):
        return character
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    if plain and plain != character and all(map(_has_glyph, plain)):
        return plain
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


@cache
def _has_glyph(character: str) -> bool:
    if character == " ":
        return True
    face = font(_PROBE_PX)
    drawn, missing = face.getmask(character), face.getmask(_NO_CHARACTER)
    empty = drawn.getbbox() is None
    return not empty and (drawn.size != missing.size or bytes(drawn) != bytes(missing))
