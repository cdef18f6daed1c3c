"""The example of SAM as a teacher, on a random module with the interface of transformers' SamModel."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

EXAMPLE = Path(__file__).parents[2] / "examples" / "sam_teacher.py"
SIZE_PX = 128


class SamModel(nn.Module):
    """Random weights; inputs, outputs and the configuration as transformers has them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 1, 4, stride=4)
        self.config = SimpleNamespace(vision_config=SimpleNamespace(image_size=SIZE_PX), _commit_hash="abc")

    @classmethod
    def from_pretrained(cls, name: str) -> SamModel:
        assert name == "small/sam"
        return cls()

    def forward(self, pixel_values: Tensor, input_boxes: Tensor, multimask_output: bool) -> SimpleNamespace:
        assert pixel_values.shape == (1, 3, SIZE_PX, SIZE_PX) and pixel_values.dtype == torch.float32
        assert input_boxes.shape[0] == 1 and input_boxes.shape[2] == 4 and not multimask_output
        logits = self.features(pixel_values)[:, None].expand(1, input_boxes.shape[1], 1, -1, -1)
        return SimpleNamespace(pred_masks=logits, iou_scores=torch.full(logits.shape[1:3], 1.02)[None])


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("transformers")
    module.SamModel = SamModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)


def test_sam_labels_the_whole_chain(transformers, deepmac, scenes_toml: Path, tmp_path: Path) -> None:
    teacher = (
        f'[teacher]\nsegmenter = "{EXAMPLE}:Sam"\n[teacher.arguments]\nweights = "small/sam"\nmask_size = 8\n'
        "[student.model]"
    )
    replaced = r"\[teacher\.model\].*?\[student\.model\]"
    (tmp_path / "sam.toml").write_text(
        re.sub(replaced, lambda _: teacher, scenes_toml.read_text(), flags=re.DOTALL)
    )
    ended = deepmac("run", tmp_path / "sam.toml", "--out", tmp_path / "run", "--allow-code")
    assert ended.code == 0, ended.err
    rows = pq.read_table(tmp_path / "run" / "pseudolabel" / "masks.parquet").to_pylist()
    drawn = [row for row in rows if row["source"] == "teacher"]
    assert drawn and all(row["soft_size"] == 8 and row["model_iou"] == 1 for row in drawn)
    assert all(0 < row["expected_iou"] <= 1 for row in drawn if row["mask_area"])
    report = json.loads((tmp_path / "run" / "report" / "summary.json").read_text())
    assert report["teacher"]["given_boxes"]["unseen"]["classes"] == 0  # nobody knows whose masks SAM saw
    inputs = json.loads((tmp_path / "run" / "pseudolabel" / "done.json").read_text())["inputs"]
    assert inputs["teacher"].endswith("sam small/sam@abc, 8 cells")


def test_without_transformers_one_line_says_what_is_missing(
    deepmac, scenes_toml: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # its import fails
    named = ["--set", f"teacher.segmenter={EXAMPLE}:Sam", "--allow-code"]
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", *named)
    last = ended.err.splitlines()[-1]
    assert ended.code == 2 and "sam_teacher.py:Sam: ModuleNotFoundError" in last and "transformers" in last
