"""What a run keeps of an annotation file beside its hash."""

from __future__ import annotations

from typing import Any

from deepmac_distill.dataset.views import Annotations
from deepmac_distill.storage.copies import lasting_name


def facts_of(annotations: Annotations) -> dict[str, Any]:
    """What a user can see of a change that the hash of an annotation file reveals."""
    counts = ("images", "annotations", "human_masks", "teacher_masks")
    return {
        "data.seen": list(annotations.classes.seen_names),
        "file": lasting_name(annotations.path),
        "classes": len(annotations.classes),
        **{name.replace("_", " "): annotations.counts[name] for name in counts},
    }
