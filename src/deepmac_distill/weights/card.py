"""A safetensors file of weights with a card that describes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from deepmac_distill.errors import CheckpointError, MachineError
from deepmac_distill.files import written_whole
from deepmac_distill.look import WHOLE_IMAGE, Look
from deepmac_distill.regular import require_regular
from deepmac_distill.weights.card_values import read_values

FORMAT = "deepmac-distill weights 1"
DETECTOR = "detector"  # role of weights without a mask head: others can start from them


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What weights are: enough to build the model again, and to refuse a use they do not fit."""

    role: str  # teacher | student | detector
    model: dict[str, Any]  # the model's config
    class_names: tuple[str, ...]  # by class index
    category_ids: tuple[int, ...]
    seen: tuple[bool, ...]  # classes whose masks were trained on
    image_size_px: int  # canvas the model was trained at
    steps: int
    data_sha256: str  # of the annotations after the seen-class filter
    # Classes, of any data, whose masks its initial weights saw.
    pretrained_mask_classes: tuple[str, ...] = ()
    # Other classes whose masks the teacher of its labels saw; None: unknown.
    teacher_mask_classes: tuple[str, ...] | None = ()
    about: str = ""  # what its reader should know, where its maker has said something
    look: Look = WHOLE_IMAGE  # how it looks at given boxes; the whole image in cards of earlier versions
    views: str = "images"  # that it was trained on: images | windows | both; earlier cards do not name them
    # Keys of `train` that its weights depend on; empty: nobody knows, as in cards of earlier versions.
    train: dict[str, Any] = field(default_factory=dict)

    @property
    def lattice(self) -> str:
        """Where its masks sample their boxes; cards name it where it is not that of cell centers."""
        return str(self.model.get("lattice", "centers"))

    @property
    def seen_mask_classes(self) -> tuple[str, ...] | None:
        """Names, sorted, of all classes whose masks the model saw by any way; None: unknown."""
        if self.teacher_mask_classes is None:
            return None
        return tuple(sorted(self.shown | set(self.teacher_mask_classes)))

    def taught_by(self, teacher: tuple[str, ...] | None) -> ModelCard:
        """The card of weights that learned from a teacher's masks.

        Args:
            teacher: names of the classes whose masks the teacher saw; None: unknown.
        """
        more = None if teacher is None else tuple(sorted(set(teacher) - self.shown))
        return replace(self, teacher_mask_classes=more)

    def as_dict(self) -> dict[str, Any]:
        """JSON values, without empty fields: cards of plain trainings stay as they were."""
        said = asdict(self)
        empty: dict[str, Any] = {"pretrained_mask_classes": (), "teacher_mask_classes": (), "about": ""}
        empty |= {"look": asdict(WHOLE_IMAGE), "views": "images", "train": {}}
        return {key: value for key, value in said.items() if key not in empty or value != empty[key]}

    @property
    def shown(self) -> frozenset[str]:
        """Names of all classes whose masks the weights or those they started from were shown.

        A model whose masks weigh nothing in its loss has learned from boxes alone.
        """
        learned = self.model.get("mask_weight") != 0
        seen = (name for name, seen in zip(self.class_names, self.seen, strict=True) if seen and learned)
        return frozenset(seen) | frozenset(self.pretrained_mask_classes)


def save_weights(path: Path, state: dict[str, Tensor], card: ModelCard) -> None:
    """Write weights and card as one safetensors file, whole or not at all.

    The bytes depend on the weights and the card alone.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    words = json.dumps({"format": FORMAT, **card.as_dict()}, sort_keys=True)
    with written_whole(path) as aside:
        # One key: the library writes several in any order.
        try:
            save_file(tensors, aside, metadata={"card": words})
        except SafetensorError as error:  # a full disk among others
            raise MachineError(
                f"{path}: cannot be written ({error}); expected a disk that takes it"
            ) from None
        aside.chmod(0o666 & ~_umask())  # the library writes for the owner alone


def read_card(path: Path) -> ModelCard:
    """The card of a weights file.

    Raises:
        CheckpointError: no such file, or not one of ours.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    return ModelCard(**read_values(metadata.get("card", "{}"), FORMAT, path))


def read_card_if_any(path: Path) -> ModelCard | None:
    """The card of a weights file; None where it has none, as those of others.

    Raises:
        CheckpointError: no such file, or a card of another format.
    """
    if path.suffix != ".safetensors":
        return None
    with _opened(path) as file:
        if "card" not in (file.metadata() or {}):
            return None
    return read_card(path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load weights into `model`, whose precision holds; every tensor must be there, fit and be finite.

    Raises:
        CheckpointError: names the first tensor that is missing, unknown, of another shape or not finite.
    """
    require_shapes(path, model)
    state = read_state(path)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(
                f"{path}: weight {name}: is not finite; expected numbers; train again with a lower lr"
            )
    model.load_state_dict(state)


def require_shapes(path: Path, model: nn.Module) -> None:
    """Compare the shapes of a file, of which its header alone is read, with a model's, on any device.

    Raises:
        CheckpointError: names the first tensor that is missing, unknown or of another shape.
    """
    with _opened(path) as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | found.keys()):
        got, need = found.get(name, "nothing"), expected.get(name, "nothing")
        if got != need:
            raise CheckpointError(f"{path}: weight {name}: got {got}, expected {need}; another architecture?")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name, in the precision that they have there.

    Raises:
        CheckpointError: no such file, or no safetensors file.
    """
    try:
        with _opened(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, TypeError, ValueError) as error:  # bytes, or kinds of numbers, that torch lacks
        raise CheckpointError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def require_classes(
    path: Path, card: ModelCard, class_names: tuple[str, ...], seen: tuple[bool, ...]
) -> None:
    """Raise CheckpointError, naming a class, unless the weights have this class list and these seen classes.

    A model that saw masks of a class must not be taken for one that did not.
    """
    if card.class_names == class_names:
        for name, trained, named in zip(class_names, card.seen, seen, strict=True):
            if trained != named:
                shown, stated = ("seen" if flag else "unseen" for flag in (trained, named))
                raise CheckpointError(
                    f"{path}: trained with the masks of {name} {shown}, data.seen makes it {stated}; "
                    "expected the same seen classes (--seen)"
                )
        return
    raise CheckpointError(f"{path}: {other_classes(card.class_names, class_names)}")


def other_classes(known: tuple[str, ...], given: tuple[str, ...]) -> str:
    """How the classes that a model knows differ from those of the data.

    >>> other_classes(("cat", "owl"), ("cat",))
    'trained on 2 classes, the data has 1; the model adds owl'
    """
    for kind, names in (
        ("lacks", sorted(set(given) - set(known))),
        ("adds", sorted(set(known) - set(given))),
    ):
        if names:
            return (
                f"trained on {len(known)} classes, the data has {len(given)}; "
                f"the model {kind} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            )
    return "trained on the same classes in another order"


def require_not_shown(
    path: Path, card: ModelCard, class_names: tuple[str, ...], seen: tuple[bool, ...]
) -> None:
    """Raise CheckpointError, naming a class, if the weights were shown masks of a class that is unseen now.

    A model that starts from them would have seen masks that it must not.
    """
    for name, may_show in zip(class_names, seen, strict=True):
        if not may_show and (card.seen_mask_classes is None or name in card.seen_mask_classes):
            known = "was shown" if card.seen_mask_classes else "may have been shown"
            raise CheckpointError(
                f"{path}: {known} masks of {name}, data.seen makes it unseen; expected weights that were "
                "not, or that class among the seen ones (--seen)"
            )


def require_lattice(path: Path, card: ModelCard | None, lattice: str | None) -> None:
    """Raise CheckpointError if a mask head would go on from weights that sampled boxes elsewhere.

    Masks on one lattice and crops on the other do not fit; weights without a mask head fit either.

    Args:
        card: of the weights; None: they have none.
        lattice: of the model that starts from them; None: it has none.
    """
    if card and lattice and card.role != DETECTOR and card.lattice != lattice:
        raise CheckpointError(
            f"{path}: its masks have the lattice {card.lattice!r}, model.lattice is {lattice!r}; expected "
            "the same"
        )


def _umask() -> int:
    """What the user takes from the rights of new files; the system has no way to ask but to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _opened(path: Path) -> Any:
    opener: Callable[..., Any] = safe_open
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected weights")
    try:
        require_regular(path)
        return opener(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not a safetensors file ({reason})") from None
