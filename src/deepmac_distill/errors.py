"""Errors that a user can fix.

A message names the place, the fault, the value and what was expected, on one line:
``instances.json: annotation 17: bbox [4, 5, "3", 3]: expected four numbers``.
"""

from __future__ import annotations

from deepmac_distill.printable import printable, shortened


class DistillError(Exception):
    """Something the user must fix. The command line prints it on one line and ends with `exit_code`."""

    exit_code = 2

    def __str__(self) -> str:
        """The message on one line of a length that can be read, whatever the names in it hold."""
        return shortened(printable(super().__str__()))


class ConfigError(DistillError):
    """A pipeline file, a flag or an override that cannot be used."""


class DataError(DistillError):
    """An annotation file or an image that cannot be used."""


class CheckpointError(DistillError):
    """Weights that do not fit: another architecture, another class list, or no weights at all."""


class ContractError(DistillError):
    """A model returned what the contract does not allow; the message names it and what it returned."""


class RunError(DistillError):
    """A run directory that belongs to other inputs, or lacks what a stage needs."""


class DeviceError(DistillError):
    """A device that the machine does not have."""


class StorageError(DistillError):
    """What a bucket does not give or take: an object, a permission, a connection."""


class MachineError(DistillError):
    """What the machine cannot give: memory, disk, locks, processes. The message names what needs less."""


class DivergedError(DistillError):
    """A training loss is not finite; the message names each term."""


class GateError(DistillError):
    """The work ran to its end, but a check the user asked for failed."""

    exit_code = 3
