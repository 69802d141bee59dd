"""What a model file must hold of a layer: floats, small integer codes, positions of the kept weights."""

from dataclasses import dataclass

from torch import Tensor

ROLES = ("values", "indices", "codebook", "bias", "normalization")


@dataclass(frozen=True)
class Floats:
    """Floating-point numbers, stored in their own precision."""

    tensor: Tensor
    role: str = "values"


@dataclass(frozen=True)
class Codes:
    """Integers of `bits` bits each; `signed` ones lie in [-2^(bits-1), 2^(bits-1) - 1], others from 0."""

    tensor: Tensor
    bits: int
    signed: bool
    role: str = "values"


@dataclass(frozen=True)
class Positions:
    """Sorted, distinct flat indices (int64) among `size` places, stored as the gaps between them."""

    tensor: Tensor
    size: int
    role: str = "indices"


Part = Floats | Codes | Positions
