"""Segmenters that others wrote: found by name, imported only where the user trusts them, and guarded.

A pipeline file or a run directory may come from a stranger. Of what it names, code runs only if it is ours,
an installed entry point of the group `deepmac.segmenters`, or if the user passed `--allow-code`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from deepmac_distill.contract import BoxSegmenter, ModelSpec, SegmentedMasks
from deepmac_distill.errors import ConfigError, ContractError, DistillError
from deepmac_distill.files import sha256_of_file
from deepmac_distill.structures import Instances

GROUP = "deepmac.segmenters"
OURS = {
    "grabcut": "deepmac_distill.teachers.grabcut:GrabCut",
    "sam": "deepmac_distill.teachers.sam.teacher:Sam",
}
_KEY = "teacher.segmenter"
Result = TypeVar("Result")


class InstalledSegmenter:
    """A segmenter whose every failure is one line that names it.

    Args:
        name: as the pipeline file has it.
        model: what somebody else wrote.
        code_sha256: of the file it was imported from, where the user named a file.

    Raises:
        ContractError: it is no segmenter, or asks for the classes of the boxes.
    """

    def __init__(self, name: str, model: BoxSegmenter, code_sha256: str | None = None) -> None:
        self._name, self._model, self.code_sha256 = name, model, code_sha256
        spec: object = getattr(model, "spec", None)
        if not isinstance(spec, ModelSpec):
            raise ContractError(f"{name}: spec: got {type(spec).__name__}, expected a ModelSpec")
        if not callable(getattr(model, "segment", None)):
            raise ContractError(f"{name}: segment: got nothing, expected a method")
        if not spec.class_agnostic:
            raise ContractError(f"{name}: spec.class_agnostic: got False, expected True of a segmenter")
        named = spec.identity if spec.identity.startswith(name) else f"{name} {spec.identity}"
        self.spec = replace(spec, identity=named, detects=False)

    def to(self, device: torch.device) -> InstalledSegmenter:
        """The same on a device, where it is a module; it answers, it does not learn."""
        if isinstance(self._model, nn.Module):
            self._model.to(device).eval()
        return self

    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        """As the model's own.

        Raises:
            ContractError: it raised something.
        """
        return _guarded(f"{self._name}: segment", lambda: self._model.segment(images, instances))


def load_segmenter(name: str, arguments: Mapping[str, object], allow_code: bool) -> InstalledSegmenter:
    """Import and build the segmenter that a pipeline file names.

    Args:
        name: one of ours, an entry point of `GROUP`, or with `allow_code` also `package.module:Class` or
            `path/to/file.py:Class`, relative to the working directory.
        arguments: for its constructor.

    Raises:
        ConfigError: there is no such segmenter, it may not be imported, or an argument is refused.
        ContractError: it does not keep the contract, or fails when it is built.
    """
    build, file = _constructor(name, allow_code)
    try:
        inspect.signature(build).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"teacher.arguments: {name}: {error}") from None
    except ValueError:  # a constructor without a signature
        pass
    model = _guarded(f"{name}: constructor", lambda: build(**arguments))
    return InstalledSegmenter(name, model, sha256_of_file(file) if file else None)


def _constructor(name: str, allow_code: bool) -> tuple[Callable[..., BoxSegmenter], Path | None]:
    """What builds the segmenter, and the file it is from where the user named one."""
    if name in OURS:
        return _attribute(name, *OURS[name].split(":")), None
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name in points:
        return _guarded(f"{_KEY}: {name}", points[name].load), None
    module, colon, attribute = name.rpartition(":")
    known = ", ".join(sorted({*OURS, *points}))
    if not (module and colon and attribute):
        raise ConfigError(f"{_KEY}: got {name!r}, expected one of {known}, or module:Class or file.py:Class")
    if not allow_code:
        raise ConfigError(
            f"{_KEY}: {name} is code that is not installed as a segmenter ({known} are); expected "
            "--allow-code, if you trust it"
        )
    file = Path(module) if module.endswith(".py") else None
    return _attribute(name, module, attribute), file


def _attribute(name: str, module: str, attribute: str) -> Callable[..., BoxSegmenter]:
    load = _from_file if module.endswith(".py") else importlib.import_module
    found: object = getattr(_guarded(f"{_KEY}: {name}", lambda: load(module)), attribute, None)
    if not callable(found):
        raise ConfigError(f"{_KEY}: {name}: {module} has no class {attribute}")
    return found


def _from_file(path: str) -> object:
    if not Path(path).is_file():
        raise ConfigError(f"{_KEY}: {path}: no such file; expected one relative to the working directory")
    name = f"deepmac_segmenter_{Path(path).stem}"  # no file may take the place of a package
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{_KEY}: {path}: cannot be imported; expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    return module


def _guarded(where: str, call: Callable[[], Result]) -> Result:
    """What `call` returns; whatever it raises becomes one line with the place in somebody else's code."""
    try:
        return call()
    except DistillError:
        raise
    except (Exception, SystemExit) as error:  # code that leaves has not done the work
        frames = traceback.extract_tb(error.__traceback__)
        place = [frame for frame in frames if not frame.filename.startswith("<frozen ")][-1]
        reason = " ".join(str(error).split())
        raise ContractError(
            f"{where}: {type(error).__name__}: {reason} ({place.filename}, line {place.lineno})"
        ) from error
