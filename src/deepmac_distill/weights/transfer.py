"""Weights that were trained before, for a backbone or a whole model, and how they are made to fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from deepmac_distill.errors import CheckpointError
from deepmac_distill.regular import require_regular

# Of batch norms. torchvision's published files predate this counter, which nothing here uses.
_COUNTER = "num_batches_tracked"
_MAX_PARTS_NAMED = 8  # of what a file has and a model does not


@dataclass(frozen=True, slots=True)
class Skipped:
    """A tensor of the model that was not loaded, and why."""

    name: str
    part: str  # of the model, see `part_of`
    reason: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What of a model a file could fill. Counters of batch norms are not counted anywhere."""

    loaded: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    tensors: Mapping[str, int]  # of each part of the model
    parameters: tuple[int, int]  # those that were loaded, of how many; running statistics among them
    without_place: tuple[str, ...]  # tensors of the file that the model does not have

    def lines(self) -> list[str]:
        """The report for a person, without line breaks: how much, what not and why, what is left over."""
        done, every = self.parameters
        found = [
            f"loaded {len(self.loaded):,} of {sum(self.tensors.values()):,} tensors "
            f"({done:,} of {every:,} parameters)"
        ]
        groups: dict[tuple[str, str], list[Skipped]] = {}
        for one in self.skipped:
            groups.setdefault((one.part, one.reason.partition(":")[0]), []).append(one)
        for (part, _), some in groups.items():
            line = f"not loaded: {part}, {len(some):,} of {self.tensors[part]:,} tensors: {some[0].reason}"
            if ":" in some[0].reason:  # the shapes of one
                line += f" in {some[0].name}{', for one' if len(some) > 1 else ''}"
            found.append(line)
        if self.without_place:
            counts = Counter(name.partition(".")[0] for name in self.without_place)
            named = ", ".join(f"{part} {count:,}" for part, count in counts.most_common(_MAX_PARTS_NAMED))
            more = ", ..." if len(counts) > _MAX_PARTS_NAMED else ""
            found.append(f"{len(self.without_place):,} tensors of the file have no place here: {named}{more}")
        return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """A flat state dict from a `.safetensors` or a `.pth` file; a pickle is read as weights only.

    It may be under `state_dict` or `model`, where training scripts keep it beside other things, and every
    name may begin with `module.`, which DataParallel adds.

    Raises:
        CheckpointError: the file is missing, broken, or holds something other than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected weights, .safetensors or .pth")
    try:
        require_regular(path)
        if path.suffix == ".safetensors":
            weights: Any = safetensors.torch.load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise a zoo of types on a broken file
        raise CheckpointError(
            f"{path}: cannot read weights ({type(error).__name__}); expected a .safetensors file, or a .pth "
            "that holds tensors alone, as torch.save(model.state_dict()) writes it"
        ) from error
    weights = _unwrapped(weights)
    entries = dict(weights) if isinstance(weights, Mapping) else {"content": weights}
    for name, entry in entries.items():
        if not isinstance(entry, Tensor):
            raise CheckpointError(
                f"{path}: {name}: got {type(entry).__name__}, expected a tensor; a state dict is flat, or "
                "under state_dict or model"
            )
    return _without_prefix(entries, "module.")


def _unwrapped(weights: Any) -> Any:
    if isinstance(weights, Mapping):
        for key in ("state_dict", "model"):
            if isinstance(weights.get(key), Mapping):
                return weights[key]
    return weights


def _without_prefix(weights: Mapping[Any, Tensor], prefix: str) -> dict[str, Tensor]:
    """Names without `prefix` where all have it, else as they are.

    >>> list(_without_prefix({"module.a": 1, "module.b": 2}, "module."))
    ['a', 'b']
    >>> list(_without_prefix({"module.a": 1, "b": 2}, "module."))
    ['module.a', 'b']
    """
    named = {str(name): tensor for name, tensor in weights.items()}
    everywhere = all(name.startswith(prefix) for name in named)
    return {name.removeprefix(prefix): tensor for name, tensor in named.items()} if everywhere else named


def load_partially(
    module: nn.Module, weights: Mapping[str, Tensor], where: str, of_others: frozenset[str] = frozenset()
) -> LoadReport:
    """Load what of `weights` has the name and the shape of a tensor of `module`; the rest stays as it is.

    Args:
        where: the file, for messages.
        of_others: tensors of `module` that are not loaded even where they fit: those of the file belong to
            other classes.

    Raises:
        CheckpointError: nothing fits.
    """
    report = what_fits(module, weights, where, of_others)
    counters = [
        name
        for name, tensor in module.state_dict().items()
        if name.endswith(_COUNTER) and name in weights and weights[name].shape == tensor.shape
    ]
    module.load_state_dict({name: weights[name] for name in (*report.loaded, *counters)}, strict=False)
    return report


def what_fits(
    module: nn.Module, weights: Mapping[str, Tensor], where: str, of_others: frozenset[str] = frozenset()
) -> LoadReport:
    """What `load_partially` would do; of `module` the shapes alone are looked at.

    Raises:
        CheckpointError: nothing fits.
    """
    own = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(_COUNTER)}
    theirs = [name for name in weights if not name.endswith(_COUNTER)]
    skipped = [
        Skipped(name, part_of(name, module), reason)
        for name, tensor in own.items()
        if (reason := _why_not(name, tensor, weights, of_others))
    ]
    left_out = {one.name for one in skipped}
    loaded = tuple(name for name in own if name not in left_out)
    if not loaded:
        example = f"{theirs[0]} {tuple(weights[theirs[0]].shape)}" if theirs else "nothing"
        first = next(iter(own))
        raise CheckpointError(
            f"{where}: none of its {len(theirs)} tensors fits the model; got such as {example}, expected "
            f"such as {first} {tuple(own[first].shape)}"
        )
    return LoadReport(
        loaded=loaded,
        skipped=tuple(skipped),
        tensors=Counter(part_of(name, module) for name in own),
        parameters=(sum(own[name].numel() for name in loaded), sum(t.numel() for t in own.values())),
        without_place=tuple(name for name in theirs if name not in own),
    )


def _why_not(name: str, own: Tensor, weights: Mapping[str, Tensor], of_others: frozenset[str]) -> str:
    """Why a tensor cannot be loaded; empty where it can."""
    if name not in weights:
        return "not in the file"
    if name in of_others:
        return "belongs to other classes"
    there, here = tuple(weights[name].shape), tuple(own.shape)
    return "" if there == here else f"other shape: {there} there, {here} here"


def part_of(name: str, module: nn.Module) -> str:
    """The part of `module` that a tensor is in: a child, or in a list of modules a child of one of them.

    >>> heads = nn.ModuleList([nn.ModuleDict({"center": nn.Linear(1, 1)})])
    >>> module = nn.ModuleDict({"backbone": nn.Linear(1, 1), "heads": heads})
    >>> part_of("backbone.weight", module), part_of("heads.0.center.weight", module)
    ('backbone', 'heads.0.center')
    """
    first, *inner = name.split(".")
    if isinstance(getattr(module, first, None), nn.ModuleList):
        return ".".join([first, *inner[:2]])
    return first


def class_tensors(build: Callable[[int], nn.Module], num_classes: int) -> frozenset[str]:
    """Names of the tensors that belong to classes: another number of classes changes their shape.

    Args:
        build: a model for a number of classes; called on the meta device.
    """
    with torch.device("meta"):  # shapes alone: no memory, no time
        these, more = (build(count).state_dict() for count in (num_classes, num_classes + 1))
    return frozenset(
        name for name, tensor in these.items() if name not in more or more[name].shape != tensor.shape
    )


def load_fitting(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load `weights` into `module`; tensors it has no place for, such as a classifier's, are left out.

    Raises:
        CheckpointError: a tensor is missing or has another shape; the first one is named.
    """
    require_fitting(module, weights, where)
    own = module.state_dict()
    module.load_state_dict({name: weights.get(name, own[name]) for name in own})


def require_fitting(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse what `load_fitting` would; `module` may be on the meta device.

    Raises:
        CheckpointError: a tensor is missing or has another shape; the first one is named.
    """
    own = module.state_dict()
    weights = {name: own[name] for name in own if name.endswith(_COUNTER)} | dict(weights)
    for name, tensor in own.items():
        if name not in weights:
            raise CheckpointError(f"{where}: no tensor {name}; expected {tuple(tensor.shape)}")
        if weights[name].shape != tensor.shape:
            got, expected = tuple(weights[name].shape), tuple(tensor.shape)
            raise CheckpointError(f"{where}: {name}: got {got}, expected {expected}")
