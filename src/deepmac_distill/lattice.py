"""Where the cells of a mask sample their box: one lattice for the crop a mask is made from, and its paste."""

from __future__ import annotations

from typing import Literal, get_args

# centers: at the centers of S x S equal cells of the box; pixel i has its center at i + 1/2.
# reference: from edge to edge of the box, the samples a share of 1 / (S - 1) apart; pixel i of n is at
# i n / (n - 1), so that the outermost pixels lie on the edges of the image. So Deep-MAC's public code has it
# (arXiv:2104.00613), and weights that it trained.
Lattice = Literal["centers", "reference"]

LATTICES: tuple[Lattice, ...] = get_args(Lattice)
LEAST_CELLS = 2  # a side; samples at both edges of a box are two
