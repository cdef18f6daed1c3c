"""The categories of a document: ids and names in one form, without repetitions that no box uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepmac_distill.dataset.classes import plain_name
from deepmac_distill.dataset.document import Entry, Head
from deepmac_distill.dataset.findings import Finding
from deepmac_distill.dataset.identity import numbered, numbering, whole_numbers
from deepmac_distill.dataset.image_entries import Located
from deepmac_distill.dataset.problems import is_text, shown
from deepmac_distill.printable import printable


@dataclass(frozen=True, slots=True)
class ReadCategories:
    """The categories of a document, and what reading changed."""

    entries: list[Entry]
    numbers: dict[Any, int]  # of ids that cannot stand for themselves
    dropped: int  # repeated names that no box uses
    findings: list[Located]


def read_categories(given: Sequence[Entry], heads: Sequence[Head]) -> ReadCategories:
    """Categories with numbers for ids and plain names.

    Args:
        heads: of the annotations: which categories have boxes.
    """
    findings: list[Located] = []
    entries = [_plain(position, category, findings) for position, category in enumerate(given)]
    numbers = numbering([category.get("id") for category in entries])
    if numbers:
        entries = [c | {"id": numbers[c["id"]], "original_id": c["id"]} for c in entries]
    names = [category.get("name") for category in entries]
    if len({repr(name) for name in names}) == len(names):
        return ReadCategories(entries, numbers, 0, findings)
    used = set(whole_numbers(numbered([head.category_id for head in heads], numbers))[0].tolist())
    kept = [c for c in entries if names.count(c.get("name")) == 1 or c.get("id") in used]
    return ReadCategories(kept, numbers, len(entries) - len(kept), findings)


def _plain(position: int, category: Entry, findings: list[Located]) -> Entry:
    name = category.get("name")
    if not isinstance(name, str):
        return category
    plain = plain_name(name)
    if is_text(name) and (hidden := invisible(plain)):
        message = f"name {shown(name)} has characters that nobody sees ({hidden}): kept; expected none"
        findings.append((-1, -1, f"categories[{position}]", Finding("doubt", "entry", message)))
    if plain in ("", name):
        return category
    if name.strip() != name:
        message = f"name {shown(name)} has blanks around it: read as {shown(plain)}; expected none"
    else:
        message = f"name {shown(name)} has accents apart from their letters: read as one; expected that (NFC)"
    findings.append((-1, -1, f"categories[{position}]", Finding("doubt", "entry", message)))
    return category | {"name": plain}


def invisible(name: str) -> str:
    """The characters of a name that are not printed, as escapes between blanks; empty where there are none.

    Joiners shape the letters of scripts that have them; between letters of ASCII they are a slip.

    >>> invisible("cat\\u200b"), invisible("\\u0645\\u06cc\\u200c\\u062e"), invisible("c\\u00a0d")
    ('\\\\u200b', '', '\\\\xa0')
    """
    shaping = "" if name.replace("\u200c", "").replace("\u200d", "").isascii() else "\u200c\u200d"
    found = (one for one in name if not one.isprintable() and one not in shaping)
    return " ".join(printable(one) for one in dict.fromkeys(found))
