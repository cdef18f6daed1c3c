"""Which model was evaluated, and how it looked and was cut."""

from __future__ import annotations

from dataclasses import dataclass

from deepmac_distill.look import Look


@dataclass(frozen=True, slots=True)
class HowEvaluated:
    """Of one evaluation; empty fields where an earlier version did not record it."""

    identity: str = ""  # changes with the model's masks
    look: Look | None = None
    cut: float | str | None = None

    @property
    def words(self) -> str:
        """The same in short.

        >>> HowEvaluated("1a2b3c4d5e6f", Look(boxes="windows"), 0.5).words
        '1a2b3c4d, window 128 px x 1.5, cut at 0.5'
        """
        window = f"window {self.look.window_size_px} px" if self.look else ""
        look = self.look.summary("image", window) if self.look else ""
        cut = "" if self.cut is None else f"cut at {self.cut}"
        return ", ".join(filter(None, (self.identity[:8], look, cut)))

    def unlike(self, other: HowEvaluated) -> list[str]:
        """What the two did in different ways; what is not recorded is not compared.

        >>> HowEvaluated(cut=0.5).unlike(HowEvaluated(look=Look(), cut="expected-iou"))
        ['were cut']
        """
        ways = (("looked", self.look, other.look), ("were cut", self.cut, other.cut))
        return [name for name, one, two in ways if None not in (one, two) and one != two]
