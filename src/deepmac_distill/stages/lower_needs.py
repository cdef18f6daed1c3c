"""Which keys lower what a stage needs of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deepmac_distill.chain import STAGES, Stage
from deepmac_distill.errors import MachineError
from deepmac_distill.machine import out_of_memory


@contextmanager
def lower_needs_named(stage: str) -> Iterator[None]:
    """Where memory does not suffice for a stage, the error names the keys that lower its need."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (short := out_of_memory(error)) is None:
            raise
        raise MachineError(f"{stage}: out of memory: {short}; expected {keys_for_less(stage)}") from error


def keys_for_less(stage: str) -> str:
    """The keys that lower what a stage needs of memory, of the CPU or a GPU."""
    match STAGES.get(stage):
        case Stage(kind="train", role=role):
            keys = ("batch_size", "image_size_px", "mask_instances_per_image")
            return (
                f"less of {', '.join(f'{role}.train.{key}' for key in keys)}, {role}.look.window_size_px "
                "(with windows) or data.workers"
            )
        case Stage(kind="label"):
            return (
                "less of labels.batch_size, labels.unit_images, teacher.look.window_size_px or data.workers"
            )
        case _:
            return "less of evaluation.batch_size, evaluation.max_detections or data.workers"
