"""Random numbers of a forward pass in training: they follow from seed and step, so a resumed training repeats them.

Dropout of every kind, stochastic depth, stochastic rounding and random gates draw here. Nothing that a network draws
elsewhere in the same step affects these draws, and no state has to be saved for them.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compedu import hashing
from compedu.errors import CompressionError


@dataclass(frozen=True, eq=False)
class _Step:
    """One step of a training, and how often each module has drawn in it so far."""

    number: int
    drawn: Counter = field(default_factory=Counter)


_current: ContextVar[_Step | None] = ContextVar("current", default=None)


@contextlib.contextmanager
def drawing(step: int) -> Iterator[None]:
    """Let all `Draws` inside the block draw the numbers of training step `step`, counted from 0."""
    token = _current.set(_Step(step))
    try:
        yield
    finally:
        _current.reset(token)


class Draws(nn.Module):
    """A source of random numbers for the module that holds it, on in training mode and off in evaluation mode.

    In a step of `fit` the numbers depend on `seed`, the step, and how often the source was used in this step. In a
    custom training loop they come from torch's stream, as those of `nn.Dropout` do; with `drawing(step)` around each
    step they come from the seed there, too.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def extra_repr(self) -> str:
        """Show the seed in the printed model."""
        return f"seed={self.seed}"

    def uniform(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return uniform numbers of (0, 1), ends excluded, of `shape`; raises `CompressionError` in evaluation mode."""
        tiny = torch.finfo(dtype).eps
        return (torch.rand(tuple(shape), generator=self._generator()) * (1 - 2 * tiny) + tiny).to(dtype)

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return standard normal numbers of `shape`; raises `CompressionError` in evaluation mode."""
        return torch.randn(tuple(shape), generator=self._generator()).to(dtype)

    def dropout(self, x: Tensor, p: float, over: Sequence[int] = ()) -> Tensor:
        """Return `x` with each value zeroed with probability `p` and the others divided by 1 - p; `x` in evaluation.

        Values that differ only in their positions along the axes `over` are dropped together: (2, 3) drops whole
        channels of (N, C, H, W), (1, 2, 3) whole images, which is the stochastic depth of a branch (Srivastava et al.
        2014, JMLR 15; Huang et al. 2016, arXiv:1603.09382).
        """
        if not 0 <= p < 1:
            raise CompressionError(f"dropout: p must be in [0, 1), got {p}")
        if not self.training or p == 0:
            return x
        together = {axis % x.ndim for axis in over}
        shape = [1 if axis in together else size for axis, size in enumerate(x.shape)]
        # Dividing by 1 - p keeps the mean, so that evaluation needs no factor (inverted dropout).
        return x * ((self.uniform(shape) >= p) / (1 - p)).to(x.dtype)

    def rounded(self, x: Tensor) -> Tensor:
        """Return `x` rounded up with the probability of its fractional part, else down; to nearest in evaluation.

        Its expectation is `x` itself (Gupta et al. 2015, arXiv:1502.02551, section 3). No gradient passes.
        """
        if not self.training:
            return x.round()
        # floor(x + u) is ceil(x) with the probability of the fractional part; the clamp undoes rounding of x + u.
        return torch.floor(x.detach() + self.uniform(x.shape, x.dtype)).clamp(x.floor(), x.ceil())

    def _generator(self) -> torch.Generator | None:
        """Return a fresh generator for the next numbers, or None for torch's own stream outside of a step."""
        if not self.training:
            raise CompressionError(
                f"random numbers are off in evaluation mode (Draws of seed {self.seed}): let the forward pass check "
                "`self.training` first and compute something else in evaluation"
            )
        if (step := _current.get()) is None:
            return None
        place = step.drawn[self]
        step.drawn[self] += 1
        mixed = torch.tensor(self.seed)
        for part in (step.number, place):
            mixed = hashing.mix(mixed) + part
        # torch's generators take the low 32 bits of a seed alone: mixed, those of all sources and steps differ
        return torch.Generator().manual_seed(int(hashing.mix(mixed)) & 0xFFFFFFFF)
