"""A model that is ready to use: from a weights file, or a segmenter that needs none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from deepmac_distill import config
from deepmac_distill.comparing import Comparing
from deepmac_distill.contract import BoxSegmenter, Detector, ModelSpec, SegmentedMasks
from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.files import sha256_of_file
from deepmac_distill.look import WHOLE_IMAGE, Look, differences
from deepmac_distill.models.build import build_model
from deepmac_distill.models.deepmac import DeepMac
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.structures import Detections, Instances
from deepmac_distill.teachers.installed import InstalledSegmenter, load_segmenter
from deepmac_distill.weights import starter
from deepmac_distill.weights.card import (
    DETECTOR,
    ModelCard,
    load_weights,
    other_classes,
    read_card,
    require_shapes,
)


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file whose card and hash have been read, once."""

    path: Path
    card: ModelCard
    sha256: str
    asked_look: Look | None = None  # other than the card's

    @classmethod
    def read(cls, path: Path, sha256: str | None = None) -> Weights:
        """Read card and hash.

        Args:
            path: of the file; "starter" is the teacher that comes with the package, unless a file has that
                name.
            sha256: of the file, where it is known.

        Raises:
            CheckpointError: no such file, or not weights of ours.
        """
        path = starter.located(path)
        return cls(path, read_card(path), sha256 or sha256_of_file(path))

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path)

    @property
    def identity(self) -> str:
        """What changes with the weights."""
        return self.sha256

    @property
    def role(self) -> str:
        """teacher | student."""
        return self.card.role

    @property
    def look(self) -> Look:
        """How it looks at given boxes."""
        return self.asked_look or self.card.look

    def with_look(self, look: Look) -> Weights:
        """The same model with another look."""
        return replace(self, asked_look=look)

    @property
    def look_note(self) -> str:
        """What a user should know of how it looks, if anything."""
        alone = "windows" in (self.card.views, self.card.look.boxes)  # earlier cards do not name the views
        if not (alone and self.look.in_images):
            return ""
        return (
            f"{self.name}: was trained on windows alone, and looks at whole images too with look.boxes = "
            f"{self.look.boxes}: these it has never learned from; boxes = windows is what it knows"
        )

    def looking(self, changes: Mapping[str, object]) -> Weights:
        """The same model with a look that is changed.

        Raises:
            ConfigError: a key or value is refused.
        """
        return self.with_look(config.changed_look(self.look, changes)) if changes else self

    @property
    def seen_mask_classes(self) -> tuple[str, ...] | None:
        """Names of the classes whose masks the model saw; None: unknown."""
        return self.card.seen_mask_classes

    def inputs(self, key: str) -> dict[str, object]:
        """What a stage that uses the model depends on."""
        otherwise = differences(self.look, self.card.look)
        return {key: self.sha256} | {f"look.{name}": value for name, value in otherwise.items()}

    def comparing(self) -> Comparing:
        """How these inputs are compared: what they do not name of the look is as the card has it."""
        return Comparing(unnamed=config.flatten(self.card.look, "look."), redone_for=("look.",))

    def provenance(self) -> dict[str, object]:
        """What a label file records of the model."""
        return self.card.as_dict()

    def model(self, device: torch.device) -> DeepMac | MaskRcnn:
        """The model, ready to use, with its spec complete.

        Raises:
            ConfigError: it cannot take windows of the size that its look has.
            CheckpointError: the weights do not fit the card.
        """
        if self.card.role == DETECTOR:
            raise CheckpointError(
                f"{self.path}: has no mask head; expected a model that draws masks (a training can start "
                "from it: teacher.train.init_from)"
            )
        recipe = config.build_model_config(self.card.model, str(self.path))
        classes = len(self.card.class_names)
        try:
            with torch.device("meta"):  # a card may ask for all memory: the file has to hold it first
                require_shapes(self.path, build_model(recipe, classes, load_weights=False))
            model = build_model(recipe, classes, load_weights=False)
        except ConfigError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        load_weights(self.path, model)
        model.spec = replace(
            model.spec,
            input_size_px=self.card.image_size_px,
            any_size=True,
            seen_mask_classes=self.seen_mask_classes,
            identity=self.sha256,
            name=self.name,
        )
        require_fits(self.look, model.spec, self.name)
        return model.to(device).eval()


@dataclass(frozen=True, slots=True)
class Segmenter:
    """A segmenter that is named in a pipeline file and needs no weights of ours."""

    name: str  # as the pipeline file has it
    arguments: Mapping[str, object]
    installed: InstalledSegmenter
    role: str = "teacher"
    look: Look = WHOLE_IMAGE  # how it looks at given boxes

    def __post_init__(self) -> None:
        require_fits(self.look, self.installed.spec, self.name)

    @classmethod
    def named(
        cls, name: str, arguments: Mapping[str, object], allow_code: bool, look: Look = WHOLE_IMAGE
    ) -> Segmenter:
        """Import and build it.

        Raises:
            ConfigError: there is no such segmenter, it is not installed and `allow_code` is False, or an
                argument or the look is refused.
            ContractError: it does not keep the contract.
        """
        return cls(name, arguments, load_segmenter(name, arguments, allow_code), look=look)

    def looking(self, changes: Mapping[str, object]) -> Segmenter:
        """The same segmenter with another look.

        Raises:
            ConfigError: a key or value is refused.
        """
        return replace(self, look=config.changed_look(self.look, changes)) if changes else self

    @property
    def look_note(self) -> str:
        """Nothing is known of what it was trained on."""
        return ""

    @property
    def identity(self) -> str:
        """What changes with the masks."""
        return self.installed.spec.identity

    @property
    def card(self) -> None:
        """It has none."""
        return None

    @property
    def seen_mask_classes(self) -> tuple[str, ...] | None:
        """Names of the classes whose masks the model saw; None: unknown."""
        return self.installed.spec.seen_mask_classes

    def inputs(self, key: str) -> dict[str, object]:
        """What a stage that uses the model depends on."""
        given = {f"teacher.arguments.{name}": value for name, value in self.arguments.items()}
        code = {"teacher code": self.installed.code_sha256} if self.installed.code_sha256 else {}
        look = config.changes(self.look, "teacher.look.")
        return {key: self.identity, "teacher.segmenter": self.name, **given, **code, **look}

    def comparing(self) -> Comparing:
        """How these inputs are compared: what they do not name of the look is the default."""
        prefix = "teacher.look."
        return Comparing(unnamed=config.flatten(WHOLE_IMAGE, prefix), redone_for=(prefix,))

    def provenance(self) -> dict[str, object]:
        """What a label file records of the model."""
        return {"role": self.role, "segmenter": self.name, "arguments": dict(self.arguments)}

    def model(self, device: torch.device) -> BoxSegmenter:
        """The model, ready to use."""
        return self.installed.to(device)


Source = Weights | Segmenter


class Renumbered:
    """A model whose classes the data numbers otherwise: each class is matched by its name.

    Args:
        model: what is asked.
        theirs: names of its classes, in its order.
        ours: names of the data's classes, in the data's order; it must know each.
    """

    def __init__(self, model: DeepMac | MaskRcnn, theirs: Sequence[str], ours: Sequence[str]) -> None:
        self._model, self.spec = model, model.spec
        self._to_model = torch.tensor([theirs.index(name) for name in ours])
        self._from_model = torch.tensor([ours.index(name) if name in ours else -1 for name in theirs])

    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        """As the model's own."""
        index = self._to_model.to(instances.class_index.device)[instances.class_index]
        return self._model.segment(images, replace(instances, class_index=index))

    def detect(
        self, images: Tensor, image_sizes: Tensor, max_detections: int, min_score: float
    ) -> Detections:
        """As the model's own; the data must have all of its classes."""
        found = self._model.detect(images, image_sizes, max_detections, min_score)
        index = self._from_model.to(found.class_index.device)[found.class_index]
        return replace(found, class_index=index)


def segmenter_for(source: Source, device: torch.device, class_names: tuple[str, ...]) -> BoxSegmenter:
    """The model, for boxes of these classes: of any where its masks are class-agnostic.

    Raises:
        ConfigError: as `Source.model`.
        CheckpointError: its masks belong to classes and it lacks one of these, or the weights do not fit.
    """
    model = source.model(device)
    if isinstance(source, Segmenter) or not isinstance(model, DeepMac | MaskRcnn):
        return model
    known = source.card.class_names
    if known == class_names or (model.spec.class_agnostic and set(known) != set(class_names)):
        return model
    if lacking := [name for name in class_names if name not in known]:
        raise CheckpointError(
            f"{source.path}: has a mask for each of its classes and {other_classes(known, class_names)}; "
            f"expected boxes of its classes, or weights of a class-agnostic mask head (lacks {lacking[0]})"
        )
    return Renumbered(model, known, class_names)


def detector_for(source: Source, model: BoxSegmenter, class_names: tuple[str, ...]) -> Detector | None:
    """`model`, made by `segmenter_for`, as a detector of exactly these classes; None where it is none."""
    if isinstance(source, Segmenter) or not model.spec.detects:
        return None
    if set(source.card.class_names) != set(class_names):
        return None
    return model if isinstance(model, DeepMac | MaskRcnn | Renumbered) else None


def require_fits(look: Look, spec: ModelSpec, where: str) -> None:
    """Refuse a look with windows that a model cannot take.

    Raises:
        ConfigError: names the key.
    """
    size_px, multiple = spec.window_size_px(look), spec.size_divisibility
    if look.in_windows and size_px % multiple:
        raise ConfigError(
            f"{where}: look.window_size_px: got {size_px}, expected a multiple of {multiple} for this model"
        )
