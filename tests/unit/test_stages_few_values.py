from __future__ import annotations

import pytest

from deepmac_distill.config import DeepMacConfig, RoleConfig
from deepmac_distill.config.training import TrainConfig
from deepmac_distill.look import Look
from deepmac_distill.stages.few_values import few_values_note


def of(mask_head: str, batch_size: int, cap: int = 0, windows: bool = True) -> RoleConfig:
    return RoleConfig(
        model=DeepMacConfig(mask_head=mask_head, detection=False, mask_instances_per_image=cap),
        train=TrainConfig(views="windows" if windows else "images", batch_size=batch_size),
        look=Look(boxes="windows"),
    )


def test_a_deep_hourglass_with_few_windows_in_a_pass_is_noted_with_the_key() -> None:
    note = few_values_note(of("hourglass-52", 8), "teacher")
    assert note.startswith(
        "teacher.train.batch_size = 8: 18 of 80 batch norms of the mask head see fewer than 16"
    )
    assert note.endswith("16 masks in a pass are enough")
    capped = few_values_note(of("hourglass-52", 4, cap=2, windows=False), "student")
    assert capped.startswith("student.train.batch_size = 4: 18 of 80")


@pytest.mark.parametrize(
    "recipe",
    [of("hourglass-52", 16), of("hourglass-10", 1), of("resnet-4", 1), of("hourglass-52", 1, windows=False)],
)
def test_enough_values_or_an_unknown_number_of_masks_is_not(recipe: RoleConfig) -> None:
    assert few_values_note(recipe, "teacher") == ""
