"""The object graph of a checkpoint: which objects held which variables, by the names of attributes.

The keys of a checkpoint are one of several paths to a variable; in a SavedModel they are numbers
(`_model/_feature_extractor/variables/17`). The graph has every path, so a variable is found by the attributes
of the code that made it, whichever became its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepmac_distill.weights.tensorflow.wire import content, fields, number

ROOTS = ("model", "_model")  # of the model, in a checkpoint and in a SavedModel
_VALUE = b"VARIABLE_VALUE"


@dataclass(frozen=True, slots=True)
class Node:
    """An object: what it holds, by name, and where its own value is, if it is a variable."""

    children: Mapping[str, int]  # number of the node
    key: str | None  # of the checkpoint


@dataclass(frozen=True, slots=True)
class ObjectGraph:
    """All objects of a checkpoint; the first is the root."""

    nodes: Sequence[Node]

    @classmethod
    def parse(cls, message: bytes) -> ObjectGraph:
        """From a TrackableObjectGraph.

        Raises:
            ValueError: it is broken, or names a node that is not there.
        """
        nodes = [_node(content(value)) for field, value in fields(message) if field == 1]
        for node in nodes:
            for name, child in node.children.items():
                if child >= len(nodes):
                    raise ValueError(f"object graph: {name}: got node {child}, expected one of {len(nodes)}")
        return cls(nodes)

    def find(self, path: Sequence[str], start: int = 0) -> int | None:
        """Number of the node that a path of names leads to; None: it leads nowhere."""
        at = start
        for name in path:
            if at >= len(self.nodes) or name not in self.nodes[at].children:
                return None
            at = self.nodes[at].children[name]
        return at

    def model(self) -> int | None:
        """Number of the node of the model; None: there is none."""
        found = (self.find([name]) for name in ROOTS)
        return next((at for at in found if at is not None), None)

    def count(self, path: Sequence[str], start: int) -> int:
        """How many items the list at a path has: children "0", "1" and so on; 0 where there is no list."""
        at = self.find(path, start)
        items = self.nodes[at].children if at is not None else {}
        count = 0
        while str(count) in items:
            count += 1
        return count


def _node(message: bytes) -> Node:
    children: dict[str, int] = {}
    key = None
    for field, value in fields(message):
        if field == 1:
            name, child = _child(content(value))
            children[name] = child
        elif field == 2:
            key = _key(content(value)) or key
    return Node(children, key)


def _child(message: bytes) -> tuple[str, int]:
    name, child = "", 0
    for field, value in fields(message):
        if field == 1:
            child = number(value)
        elif field == 2:
            name = content(value).decode("utf-8")
    return name, child


def _key(message: bytes) -> str | None:
    """Of an attribute that is a variable's value."""
    found = dict(fields(message))
    if found.get(1) != _VALUE or 3 not in found:
        return None
    return content(found[3]).decode("utf-8")
