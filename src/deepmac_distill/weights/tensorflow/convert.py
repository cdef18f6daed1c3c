"""The tensors of the authors' models in the form that ours have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepmac_distill.weights.tensorflow.bundle import Array, Bundle
from deepmac_distill.weights.tensorflow.graph import ObjectGraph
from deepmac_distill.weights.tensorflow.names import FIRST_KERNEL, HEATMAP_OUTPUT, TfPath, tf_paths

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_OF_OPTIMIZER = "/.OPTIMIZER_SLOT/"

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TfModel:
    """The model in a checkpoint: its variables by the names of attributes."""

    bundle: Bundle
    graph: ObjectGraph
    root: int

    @classmethod
    def of(cls, bundle: Bundle) -> TfModel:
        """The model of a bundle's object graph.

        Raises:
            ValueError: there is none.
        """
        graph = bundle.graph()
        root = graph.model()
        if root is None:
            names = ", ".join(sorted(graph.nodes[0].children)[:5]) if graph.nodes else "nothing"
            raise ValueError(f"got an object graph of {names}; expected a detection model (model, _model)")
        return cls(bundle, graph, root)

    def key(self, path: TfPath) -> str | None:
        """Of the variable at a path; None: there is none."""
        at = self.graph.find(path, self.root)
        return None if at is None else self.graph.nodes[at].key

    def shape(self, path: TfPath) -> Shape | None:
        """Of the variable at a path, as it is there; None: there is none."""
        key = self.key(path)
        entry = None if key is None else self.bundle.entries.get(key)
        return None if entry is None else entry.shape

    def count(self, path: TfPath) -> int:
        """How many items the list at a path has."""
        return self.graph.count(path, self.root)

    def variables(self) -> frozenset[str]:
        """Keys of all variables of the model, those of an optimizer left out."""
        begins = tuple(f"{name}/" for name, at in self.graph.nodes[0].children.items() if at == self.root)
        return frozenset(
            key
            for key in self.bundle.entries
            if key.startswith(begins) and key.endswith(_VALUE) and _OF_OPTIMIZER not in key
        )


@dataclass(frozen=True, slots=True)
class Converted:
    """Tensors of ours, and what of the checkpoint has no place among them."""

    tensors: Mapping[str, Array]
    without_place: tuple[str, ...]  # keys


def misfit(model: TfModel, expected: Mapping[str, Shape]) -> str | None:
    """Why a checkpoint cannot fill these tensors of ours; None: it can.

    Args:
        expected: name -> shape; the channels of classes are not compared.
    """
    for name, path in tf_paths(expected.keys()).items():
        shape, where = model.shape(path), "/".join(path)
        if shape is None:
            return f"{where}: is not there; expected the tensor {name}"
        if HEATMAP_OUTPUT.match(name):
            continue
        got = _converted_shape(shape, expected[name])
        if got != expected[name]:
            return f"{where}: got a shape that becomes {got}, expected {expected[name]} for {name}"
    return None


def convert(
    model: TfModel, expected: Mapping[str, Shape], channels: Sequence[int] | None = None
) -> Converted:
    """All of these tensors of ours, filled.

    Args:
        expected: name -> shape, all of which the checkpoint has (`misfit`).
        channels: which channels of the heatmap are kept, in their order; None: all.

    Raises:
        ValueError: a tensor is damaged.
    """
    paths = tf_paths(expected.keys())
    keys = {name: key for name, path in paths.items() if (key := model.key(path)) is not None}
    tensors = {}
    for name, key in keys.items():
        values = _turned(model.bundle.array(key), name)
        if channels is not None and HEATMAP_OUTPUT.match(name):
            values = values[list(channels)]
        values = _padded(values, expected[name])
        if values.shape != expected[name]:
            raise ValueError(f"{key}: got a tensor that becomes {values.shape}, expected {expected[name]}")
        tensors[name] = np.array(values, order="C")  # a copy: what is read cannot be written to
    return Converted(tensors, tuple(sorted(model.variables() - set(keys.values()))))


def _converted_shape(shape: Shape, expected: Shape) -> Shape:
    if len(shape) != 4:
        return shape
    height, width, inside, outside = shape
    return (outside, inside, 3 if _is_flat(shape[:2], expected[2:]) else height, width)


def _turned(values: Array, name: str) -> Array:
    """A kernel from (height, width, in, out) to (out, in, height, width); of pixels from BGR to RGB."""
    if values.ndim != 4:
        return values
    kernel = values.transpose(3, 2, 0, 1)
    return kernel[:, ::-1] if name == FIRST_KERNEL else kernel


def _padded(values: Array, expected: Shape) -> Array:
    """A kernel one cell high as one of three: zeros above and below give the same map.

    Embedding heads are 1 x 3 in the authors' code from 2021-04-28 on, by the default of an argument.
    """
    if values.ndim != 4 or not _is_flat(values.shape[2:], expected[2:]):
        return values
    return np.pad(values, ((0, 0), (0, 0), (1, 1), (0, 0)))


def _is_flat(kernel: Shape, expected: Shape) -> bool:
    return tuple(kernel) == (1, 3) and tuple(expected) == (3, 3)
