"""Rounding that looks at the inputs of a layer: what GPTQ and AdaRound share."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compedu.forms import Quantized
from compedu.knobs import PerLayer, inherited, method
from compedu.methods.calibrated_method import CalibratedMethod
from compedu.methods.input_moments import InputMoments
from compedu.methods.quantization.shared.weight_quantization import WeightQuantization


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels that weights (groups, rows, n) can take: `scale` times a code in `low`..`high`.

    With `signs` only these two codes exist. Weights outside `kept` have the code 0. All tensors have the shape of the
    weights.
    """

    scale: Tensor
    kept: Tensor
    low: Tensor
    high: Tensor
    signs: bool = False

    @classmethod
    def of(cls, form: Quantized, moments: InputMoments) -> "Levels":
        """Return the levels of the weights of `form`."""
        shape = form.latent.shape
        low, high = (moments.rows(end.expand(shape)).double() for end in form.code_range)
        scale = moments.rows(form.grid_step.expand(shape)).double()
        return cls(scale, moments.rows(form.mask), low, high, form.signs)

    def nearest(self, weights: Tensor, column: int | slice = slice(None)) -> Tensor:
        """Return the codes nearest to weights: all (groups, rows, n), or those of one column (groups, rows)."""
        if self.signs:
            codes = torch.where(weights < 0, -1.0, 1.0).to(weights.dtype)
        else:
            codes = torch.round(weights / self.scale[..., column])
            codes = codes.clamp_(self.low[..., column], self.high[..., column])
        return codes * self.kept[..., column]

    def values(self, codes: Tensor, column: int | slice = slice(None)) -> Tensor:
        """Return the weights that codes stand for."""
        return codes * self.scale[..., column]

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Levels":
        """Return the levels with all tensors changed alike: reordered, or in another precision."""
        return Levels(change(self.scale), change(self.kept), change(self.low), change(self.high), self.signs)

    def reordered(self, columns: Tensor) -> "Levels":
        """Return the levels of the weights taken along their last dimension at `columns` (groups, rows, n)."""
        return self.changed(lambda tensor: tensor.gather(2, columns))


@method
class CalibratedRounding(CalibratedMethod, WeightQuantization):
    """A method that chooses the codes of each layer by the moments of its inputs, in no row worse than the nearest."""

    bits: PerLayer[int] = inherited(WeightQuantization, "bits", default=3)
    scales: str = inherited(WeightQuantization, "scales")
    clipping: str = inherited(WeightQuantization, "clipping")
    grid: str = inherited(WeightQuantization, "grid")
    group_size: int = inherited(WeightQuantization, "group_size")
    weight_coverage: float = inherited(WeightQuantization, "weight_coverage")
    budget: str = inherited(WeightQuantization, "budget")
    code_bytes: int = inherited(WeightQuantization, "code_bytes")
    calibration_images: int = inherited(CalibratedMethod, "calibration_images", default=512)

    def compress_calibrated(self, name: str, layer: nn.Module, moments: InputMoments) -> Quantized:
        """Return the layer with latent weights on the levels that `codes` chooses, or, row by row, the nearest."""
        form = self.scaled(name, layer)
        levels = Levels.of(form, moments)
        rows = moments.rows(form.latent.detach()).double()
        nearest = levels.values(levels.nearest(rows))
        chosen = levels.values(self.codes(form, moments, levels))
        better = moments.row_errors(rows - chosen) < moments.row_errors(rows - nearest)
        made = torch.where(better[..., None], chosen, nearest)
        form.latent.data.copy_(made.reshape(form.latent.shape))
        return form

    @abstractmethod
    def codes(self, form: Quantized, moments: InputMoments, levels: Levels) -> Tensor:
        """Return the codes of the weights of `form`, (groups, rows, n)."""
