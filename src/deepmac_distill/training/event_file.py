"""TensorBoard's event files, by its own writer, which the extra `[tensorboard]` installs."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.errors import ConfigError


def require_tensorboard() -> None:
    """Refuse to write event files where the writer is not installed.

    Raises:
        ConfigError: it is not; names the extra.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"log.to: tensorboard cannot be imported ({error}); expected it installed: "
            "pip install 'deepmac-distill[tensorboard]'"
        ) from None


class EventFile:
    """A new event file in a folder, to be closed.

    Args:
        folder: of one training; each start of it adds a file.
        first_step: steps from here on, of earlier files, are not shown any more.

    Raises:
        ConfigError: as `require_tensorboard`.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter  # imports tensorboard, which takes a second

        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def write(self, step: int, **figures: float) -> None:
        """Append one point of each figure and flush it."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
