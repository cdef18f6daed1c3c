"""The state from which a training resumes exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from deepmac_distill.errors import CheckpointError
from deepmac_distill.files import written_whole
from deepmac_distill.ranks import ONE, Ranks
from deepmac_distill.regular import require_regular

SCALER = "scaler"  # of losses in half precision: a state without it is as good


class Stateful(Protocol):
    """A model, an optimizer: what gives its state and takes it back."""

    def state_dict(self) -> dict[str, Any]:
        """The state by name."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take a state back."""


class DamagedState(CheckpointError):
    """A state that nothing can go on from."""


class TrainingState:
    """Everything that a loop needs to resume exactly, in one file."""

    def __init__(self, path: Path, parts: Mapping[str, Stateful]) -> None:
        """`parts`: name -> what has a state."""
        self._path, self._parts = path, parts

    def save(self, step: int) -> None:
        """Write the state after `step` optimizer steps, whole or not at all."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        with written_whole(self._path) as aside, aside.open("wb") as file:  # a full disk is then an OSError
            torch.save({"step": step, "rng": torch.get_rng_state(), "parts": parts}, file)

    def restore(self, ranks: Ranks = ONE) -> int:
        """Load the state if there is one; returns the number of steps done (0: a fresh start).

        The first of several processes reads it for all. In a fresh start they take its model.

        Raises:
            DamagedState: the file cannot be read or belongs to another model; the parts are half loaded.
        """
        saved = self._read() if ranks.leads else None
        step = 0 if saved is None else self._load(saved)
        announced = ranks.announce(saved)
        if announced is None:
            for tensor in self._parts["model"].state_dict().values():
                ranks.send(tensor)
        return step if ranks.leads or announced is None else self._load(announced)

    def _read(self) -> Any:
        if not self._path.exists():
            return None
        try:
            require_regular(self._path)
            return torch.load(self._path, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:
            raise self._damaged(error) from error

    def _load(self, saved: Any) -> int:
        try:
            for name, part in self._parts.items():
                if name == SCALER and name not in saved["parts"]:  # of a device that needed none
                    continue
                part.load_state_dict(saved["parts"][name])
            torch.set_rng_state(saved["rng"])
            return int(saved["step"])
        except MemoryError:
            raise
        except Exception as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DamagedState:
        """Bytes of any kind make torch raise anything; its words advise to load the file unsafely."""
        return DamagedState(
            f"{self._path}: cannot be used ({type(error).__name__}); expected the state of this training"
        )
