"""Options that cannot be used: code 2, one line: where, what, got, expected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refusals import assert_refused

WINDOW = "teacher.look.window_size_px: got 60, expected a multiple of 16 for this backbone"
UNDETECTED = ["--set", "teacher.model.detection=false"]


RCNN = ["--set", 'teacher.model={architecture="mask_rcnn", backbone="resnet18"}']


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--annotations", "gone.json"], "gone.json: cannot be read: No such file"),
        (["--annotations", "images"], "images: cannot be read: Is a directory"),
        (["--images", "gone"], "gone/1.png: no such file; expected an image"),
        (["--seen", "catt"], 'seen class "catt": no such class; expected one such as cat'),
        (["--seen", "cat,dog"], 'seen class "dog": no such class'),
        (["--seen", "gone.txt"], "gone.txt: list of seen classes: "),
        (["--seen", "kite"], "no masks of the seen classes (kite)"),
        (["--seen", ""], "expected at least one"),
        (["--device", "cuda:99"], "device: got cuda:99, but torch sees"),
        (["--device", "cuda:99999999999"], "device: got cuda:99999999999, but torch sees"),
        (["--device", "mps"], "device: got mps, but torch sees no Apple GPU; expected cpu or auto"),
        (["--device", "foo"], "device: got 'foo', expected auto, cpu, cuda, cuda:N or mps"),
        (["--seed", "-1"], "seed: got -1, expected at least 0"),
        (["--set", "teacher.train.image_size_px=60"], "teacher.train.image_size_px: got 60, expected a mult"),
        (["--set", "teacher.model.mask_head=unet"], "teacher.model.mask_head: got 'unet', expected one of"),
        (
            ["--set", "teacher.model.batch_norm_boxes=seen"],
            "teacher.model.batch_norm_boxes: got 'seen', exp",
        ),
        (["--set", "teacher.model.mask_size=7"], "teacher.model.mask_size: got 7, expected a multiple of 2"),
        (["--set", "teacher.model.backbone=tinny"], "teacher.model.backbone: got 'tinny', expected tiny, "),
        (["--set", "teacher.model.backbone_width=6"], "teacher.model.backbone_width: got 6, expected a mu"),
        (["--set", "teacher.model.backbone_weights=gone.pth"], "gone.pth: "),
        (["--set", "teacher.look.window_size_px=60", "--set", "teacher.look.boxes=windows"], WINDOW),
        (["--set", "teacher.look.boxes=zoom"], "teacher.look.boxes: got 'zoom', expected one of image, "),
        (
            ["--set", "teacher.look.window_context=0.5"],
            "teacher.look.window_context: got 0.5, expected 1 to 20",
        ),
        (
            ["--set", "teacher.train.window_shift=2"],
            "teacher.train.window_shift: got 2.0, expected in [0",
        ),
        (["--set", "teacher.train.box_jitter=0.5"], "teacher.train.box_jitter: got 0.5, expected in [0, 0.5"),
        (
            ["--set", "teacher.train.box_jitter=0.1"],
            "teacher.train.box_jitter: got 0.1, expected 0 for boxes that detection learns, or views",
        ),
        (["--set", "teacher.train.window_scale_range=[2,1]"], "teacher.train.window_scale_range: got (2.0, "),
        (
            ["--set", "teacher.train.views=windows"],
            "teacher.train.views: got 'windows', expected \"both\", or",
        ),
        (
            [*UNDETECTED, "--set", "teacher.train.views=windows"],
            "teacher.look.boxes: got 'image', expected ",
        ),
        (
            [*RCNN, "--set", "teacher.train.views=both"],
            "teacher.train.views: got 'both', expected ",
        ),
        (["--set", "teacher.train.learning_rate=1"], "teacher.train.learning_rate: unknown key"),
        (["--set", "teacher.train.lr=fast"], "teacher.train.lr: got 'fast', expected float"),
        (["--set", "teacher.train.lr"], "--set teacher.train.lr: expected key=value"),
        (["--set", "teacher.train.lr=1e30"], "loss is not finite: mask "),
        (["--set", "teacher.train.lr=inf"], "teacher.train.lr: got inf, expected a finite number"),
        (
            ["--set", "evaluation.min_lead_over_ellipse=nan"],
            "evaluation.min_lead_over_ellipse: got nan, expected a",
        ),
        (["--seed", "4294967296"], "seed: got 4294967296, expected at most 4294967295"),
        (["--seed", "9" * 30], f"seed: got {'9' * 30}, expected at most 9007199254740992"),
        (["--set", f"seed={'9' * 5000}"], "seed: got "),
        (["--set", "threads=1000000"], "threads: got 1000000, expected at most 1024"),
        (["--set", "data.workers=100000"], "data.workers: got 100000, expected 0 to 1024"),
        (["--set", "evaluation.bootstrap=1000000000"], "evaluation.bootstrap: got 1000000000, expected at"),
        (["--set", "evaluation.max_detections=100000000"], "evaluation.max_detections: got 100000000, exp"),
        (["--set", "name=../../../escaped"], "name: got '../../../escaped', expected a name without fold"),
        (["--set", "name=.."], "name: got '..', expected a name without folders"),
        (["--set", "name='a\\b'"], "expected a name without folders"),
    ],
)
def test_a_flag_that_cannot_be_used_is_refused(teach, tmp_path: Path, flags: list[str], says: str) -> None:
    assert_refused(teach(*flags), says, tmp_path)


def test_a_gpu_that_is_not_there_is_refused(teach, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert_refused(
        teach("--device", "cuda"), "got cuda, but torch sees 0 GPUs; expected cpu or auto", tmp_path
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ("1,2,3", "--box 1,2,3: expected four numbers x,y,w,h in pixels"),
        ("a,b,c,d", "--box a,b,c,d: expected four numbers"),
        ("1,1,inf,5", "--box 1,1,inf,5: expected four numbers"),
        ("nan,1,5,5", "--box nan,1,5,5: expected four numbers"),
        ("70,70,9,9", "000001.png: box [70.0, 70.0, 9.0, 9.0]: no area in the 64 x 64 image"),
        ("5,5,0,9", "000001.png: box [5.0, 5.0, 0.0, 9.0]: no area"),
        ("20,20,-5,9", "000001.png: box [20.0, 20.0, -5.0, 9.0]: no area"),
    ],
)
def test_a_box_that_cannot_be_used_is_refused(chain, deepmac, tmp_path: Path, box: str, says: str) -> None:
    image = chain[0] / "scenes-val" / "images" / "000001.png"
    ended = deepmac("predict", image, "--box", box, "--model", chain[0], "--out", tmp_path / "out")
    assert_refused(ended, says, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_image_to_predict_on_that_cannot_be_read_is_refused(chain, deepmac, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    for name, says in (("a.png", "cannot be decoded"), ("b.png", "no such file"), (".", "cannot be decoded")):
        ended = deepmac("predict", tmp_path / name, "--box", "1,1,9,9", "--model", chain[0])
        assert_refused(ended, says, tmp_path)


@pytest.mark.parametrize(
    ("hide", "says"),
    [
        ("tree", 'class to hide "tree": no seen class; expected one such as cat'),
        ("cat", "all seen classes are to be hidden; expected at least one to be left"),
        ("fold:2/2", "hide 'fold:2/2': expected fold:I/K with I < K and K from 2 to the number of seen"),
    ],
)
def test_what_cannot_be_hidden_is_refused(teach, tmp_path: Path, hide: str, says: str) -> None:
    assert_refused(teach("--hide", hide), says, tmp_path)
