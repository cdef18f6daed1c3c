"""The example of SAM as a teacher, on transformers' own model with random weights."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "sam_teacher.py"
SIZE_PX, WIDTH = 128, 16


@pytest.fixture
def sam(tmp_path: Path) -> Path:
    """A folder of weights as transformers saves them."""
    torch.manual_seed(0)
    image = {"image_size": SIZE_PX, "patch_size": 16}
    vision = SamVisionConfig(
        hidden_size=WIDTH,
        output_channels=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_pos_feats=WIDTH // 2,
        mlp_dim=32,
        window_size=4,
        global_attn_indexes=[0],
        **image,
    )
    prompts = SamPromptEncoderConfig(hidden_size=WIDTH, mask_input_channels=4, **image)
    decoder = SamMaskDecoderConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, mlp_dim=32, iou_head_hidden_dim=WIDTH
    )
    config = SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompts.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    )
    SamModel(config).save_pretrained(tmp_path / "sam")
    return tmp_path / "sam"


def test_sam_labels_the_whole_chain(sam, deepmac, scenes_toml: Path, tmp_path: Path) -> None:
    teacher = (
        f'[teacher]\nsegmenter = "{EXAMPLE}:Sam"\n[teacher.arguments]\nweights = "{sam}"\nmask_size = 8\n'
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
    assert drawn and all(row["soft_size"] == 8 and 0 <= row["model_iou"] <= 1 for row in drawn)
    assert all(0 < row["expected_iou"] <= 1 for row in drawn if row["mask_area"])
    report = json.loads((tmp_path / "run" / "report" / "summary.json").read_text())
    assert report["teacher"]["given_boxes"]["unseen"]["classes"] == 0  # nobody knows whose masks SAM saw
    inputs = json.loads((tmp_path / "run" / "pseudolabel" / "done.json").read_text())["inputs"]
    assert re.search(r"sam .*/sam@[0-9a-f]{64}, 8 cells$", inputs["teacher"])  # named by its content


def test_without_transformers_one_line_says_what_is_missing(
    deepmac, scenes_toml: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # its import fails
    named = ["--set", f"teacher.segmenter={EXAMPLE}:Sam", "--allow-code"]
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", *named)
    last = ended.err.splitlines()[-1]
    assert ended.code == 2 and "sam_teacher.py:Sam: ModuleNotFoundError" in last and "transformers" in last
