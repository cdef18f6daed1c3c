"""No command writes over an input, a file of somebody else, or what a stage of a run made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def photo(chain, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(chain[0] / "scenes-val" / "images" / "000001.png", tmp_path / "photo.png"))


def commands(run: Path, photo: Path) -> dict[str, tuple[list[object], str]]:
    """A command that writes, and the file that its `--out` (or `--json`) below writes."""
    boxes, images = run / "scenes-val" / "instances.json", run / "scenes-val" / "images"
    teacher = run / "teacher" / "weights.safetensors"
    given = ["--model", teacher, "--out"]
    bench = ["bench", f"t={teacher}", "--annotations", boxes, "--images", images, "--images-count", 1]
    return {
        "predict": (["predict", photo, "--box", "4,6,30,20", *given, "mine"], "mine.json"),
        "predict --boxes": (["predict", images / "000001.png", "--boxes", boxes, *given, "mine"], "mine.png"),
        "detect": (["detect", photo, "--model", run, "--out", "mine"], "mine/detections.json"),
        "show": (["show", run, "--out", "mine.png"], "mine.png"),
        "sheet": (["sheet", f"t={run / 'evaluate-teacher'}", "--out", "mine.png"], "mine.png"),
        "bench": ([*bench, "--rounds", 1, "--json", "mine.json"], "mine.json"),
        "detect --image-info": (
            ["detect", images, "--image-info", boxes, "--model", run, "--out", "mine"],
            "mine/results.json",
        ),
        "results --json": (["results", run, "--json", "mine.json"], "mine.json"),
        "results": (["results", run, "--markdown", "mine.md"], "mine.md"),
        "export": (["export", run, "--format", "coco-rle", "--out", "mine.json"], "mine.json"),
        "import-masks": (
            ["import-masks", run / "select" / "instances.json", "--into", run, "--out", "mine.json"],
            "mine.json",
        ),
        "review-list": (["review-list", run, "--out", "mine.json"], "mine.json"),
        "init": (["init", "mine.toml"], "mine.toml"),
    }


@pytest.mark.parametrize("name", list(commands(Path(), Path())))
@pytest.mark.parametrize("theirs", ["a file", "a dangling link", "a pipe"])
def test_a_file_of_somebody_else_stays(chain, deepmac, photo: Path, name: str, theirs: str) -> None:
    words, file = commands(chain[0], photo)[name]
    place = Path(file)
    place.parent.mkdir(exist_ok=True)
    if theirs == "a file":
        place.write_text('{"mine": 1}')
    elif theirs == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("nowhere")
    ended = deepmac(*words)
    assert ended.code == 2 and f"{file}: is there" in ended.err and len(ended.err.splitlines()) == 1
    assert place.is_symlink() or place.is_fifo() or place.read_text() == '{"mine": 1}'


@pytest.mark.parametrize("name", ["predict", "detect", "show", "sheet", "bench", "results", "results --json"])
def test_its_own_file_is_written_again(chain, deepmac, photo: Path, name: str) -> None:
    words, file = commands(chain[0], photo)[name]
    assert deepmac(*words).code == deepmac(*words).code == 0 and Path(file).is_file()


def test_an_input_stays_whatever_its_name_and_kind(chain, deepmac, photo: Path) -> None:
    before = photo.read_bytes()
    os.link(photo, "again.png")
    Path("link.png").symlink_to(photo)
    model = ["--model", chain[0]]
    for out in ("photo", "again", "link", "./photo.png", f"../{photo.parent.name}/photo.json"):
        ended = deepmac("predict", photo, "--box", "4,6,30,20", *model, "--out", out)
        assert ended.code == 2 and "expected another --out" in ended.err, out
    assert photo.read_bytes() == before
    assert deepmac("predict", photo, "--box", "4,6,30,20", *model, "--out", "masks").code == 0
    boxes = Path("masks.json").read_bytes()  # ours, and now an input
    ended = deepmac("predict", photo, "--boxes", "masks.json", *model, "--out", "masks")
    assert ended.code == 2 and "masks.json: is an input" in ended.err
    assert Path("masks.json").read_bytes() == boxes


@pytest.mark.parametrize("name", ["show", "sheet", "predict"])
def test_what_a_stage_made_stays(deepmac, run_copy, photo: Path, name: str) -> None:
    run = run_copy()
    place = run / "report" / "contact_sheet.png"
    before = place.read_bytes()
    words, _ = commands(run, photo)[name]
    ended = deepmac(*words[:-1], place)
    assert ended.code == 2 and "is in a stage of a run, which is kept as it is" in ended.err
    assert place.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("export", "RUN", "--format", "coco-rle"),
        ("import-masks", "RUN/select/instances.json", "--into", "RUN"),
        ("review-list", "RUN"),
    ],
    ids=lambda words: words[0],
)
def test_a_new_file_is_not_put_into_a_stage(chain, deepmac, words: tuple[str, ...]) -> None:
    run, out = chain[0], chain[0] / "select" / "mine.json"
    ended = deepmac(*(word.replace("RUN", str(run)) for word in words), "--out", out)
    assert ended.code == 2 and "mine.json: is in a stage of a run" in ended.err
    assert not out.exists()
