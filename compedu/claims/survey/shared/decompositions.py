"""The decompositions that are compared, and how many weights their factors keep."""

import math
from collections.abc import Mapping

from compedu.forms import Geometry
from compedu.methods import CPDecomposition, TruncatedSVD, TuckerDecomposition
from compedu.methods.low_rank.shared.factorization import Factorization
from compedu.methods.low_rank.shared.rank import Ranks

SVD = "truncated SVD"
TUCKER = "Tucker-2"
CP = "CP"
DECOMPOSITIONS: Mapping[str, Factorization] = {
    SVD: TruncatedSVD(), TUCKER: TuckerDecomposition(), CP: CPDecomposition()
}  # fmt: skip
KEPT = 4  # the factors have at most one weight in so many of the kernel


def quarter(method: Factorization, geometry: Geometry) -> Ranks:
    """Return the largest rank, the same for all axes, whose factors have at most a quarter of the weights."""
    axes = len(method.full_ranks(geometry))
    most = math.prod(geometry.shape) // KEPT
    rank = 1
    while method.numbers(geometry, (rank + 1,) * axes) <= most:
        rank += 1
    return (rank,) * axes
