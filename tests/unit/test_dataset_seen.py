from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.dataset.classes import VOC_NAMES, Classes
from deepmac_distill.errors import DataError

# pycocotools.mask.decode predates numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def categories(*names: str) -> list[dict[str, Any]]:
    return [{"id": i, "name": name} for i, name in enumerate(names, start=1)]


def test_voc_and_non_voc_split_the_file() -> None:
    names = categories("zebra", "tv", "person", "kite")
    voc, rest = (Classes.from_categories(names, seen) for seen in ("voc", "non-voc"))
    assert voc.seen_names == rest.unseen_names == ("tv", "person")
    assert len(VOC_NAMES) == len(set(VOC_NAMES)) == 20


@pytest.mark.parametrize("form", ["cat, hot dog", ["cat", "hot dog"], "file"])
def test_names_come_between_commas_in_a_list_or_in_a_file(tmp_path: Path, form: str | list[str]) -> None:
    if form == "file":
        form = str(tmp_path / "seen.txt")
        Path(form).write_text("cat\n\nhot dog\n")
    assert Classes.from_categories(categories("cat", "hot dog", "yak"), form).seen_names == ("cat", "hot dog")


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        ("zebr", 'seen class "zebr": no such class; expected one such as zebra'),
        ("voc", "seen classes 'voc': none is in the file"),
        ([], "none is in the file"),
        ("nowhere.txt", "nowhere.txt: list of seen classes"),
    ],
)
def test_seen_classes_that_do_not_fit_are_refused(seen: str | list[str], message: str) -> None:
    with pytest.raises(DataError) as error:
        Classes.from_categories(categories("zebra", "kite"), seen)
    assert message in str(error.value)
