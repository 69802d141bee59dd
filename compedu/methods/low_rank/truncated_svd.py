"""Truncated singular value decomposition: each layer becomes two in sequence, with few channels in between."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from compedu.forms import Geometry, weight_of
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.calibration import calibration_knob
from compedu.methods.input_moments import InputMoments, in_order_of_execution, input_moments, moments_too_large
from compedu.methods.low_rank.shared.matrix import MatrixFactorization
from compedu.methods.low_rank.shared.output_fit import linear_for_outputs, vertical_horizontal_for_outputs
from compedu.methods.low_rank.shared.rank import Ranks
from compedu.methods.task import Task


@method
class TruncatedSVD(MatrixFactorization):
    r"""Replace every weight matrix by the closest one of low rank, as two layers in sequence.

    $W \approx U_r S_r V_r^\top$ with the $r$ largest singular values. Of a linear layer, $W$ being (out, in), the first
    layer is $\sqrt{S_r} V_r^\top$, the second $U_r \sqrt{S_r}$. Of a convolution, $W$ is the weight as a matrix
    (in * height, out * width), and it is the other way round: the first layer, a vertical convolution, is
    $U_r \sqrt{S_r}$, the second, a horizontal one, $\sqrt{S_r} V_r^\top$. It saves parameters only if
    $r (m + n) < m n$ for an $m \times n$ matrix. `fit="outputs"` makes not the weight but the layer's outputs on
    training images close, $\min \mathrm{E} \lVert W x - \hat W x \rVert^2$, layer after layer.
    Stored: the two factors at full precision.
    Skips: layers where a fractional rank is not below break-even, unless `allow_larger`; grouped
    convolutions; layers that are already compressed. An integer rank that saves nothing raises `CompressionError`.
    Paper: Denton, Zaremba, Bruna, LeCun, Fergus 2014, Exploiting linear structure within convolutional networks,
    arXiv:1404.0736, section 3; convolutions Tai, Xiao, Zhang, Wang, E 2016, arXiv:1511.06067, section 3; fitted to
    outputs: Jaderberg, Vedaldi, Zisserman 2014, arXiv:1405.3866, section 2.2 (scheme 2); linear layers Zhang, Zou, He,
    Sun 2016, arXiv:1505.06798, section 3.1.
    """

    unscanned: ClassVar[tuple[str, ...]] = (*MatrixFactorization.unscanned, "fit")  # losses are those of the closest

    rank: PerLayer[float | int] = inherited(MatrixFactorization, "rank")
    budget: str = inherited(MatrixFactorization, "budget")
    fit: str = knob(
        default="weights",
        help="what the factors come close to: the weight, or what the layer makes of its inputs on training images",
        choices=("weights", "outputs"),
    )
    calibration_images: int = calibration_knob(
        "training images that show the loss to budget='sensitivity', and the inputs of each layer to fit='outputs', "
        "at most",
        default=512,
    )

    @property
    def needs(self) -> str:
        """The weights alone, unless a loss is measured or inputs are looked at."""
        return "calibration" if self.fit == "outputs" else super().needs

    def chosen(self, task: Task) -> dict[str, nn.Module]:
        """Return the selected layers, in order of execution where each sees the factored layers before it."""
        layers = super().chosen(task)
        if self.fit == "weights":
            return layers
        return in_order_of_execution(task.model, layers, task.data, self.calibration_images)

    def left_alone(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, str]:
        """Return also the names of the layers whose inputs take too much memory to be looked at."""
        reasons = super().left_alone(task, layers)
        if self.fit == "weights":
            return reasons
        large = {name: moments_too_large(Geometry.of(layer)) for name, layer in layers.items()}
        return reasons | {name: reason for name, reason in large.items() if reason}

    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return the layer as two in sequence, close to its weight or to its outputs in the network as it is now."""
        ranks = self.ranks_for(task, name, layer)
        if self.fit == "weights":
            return self.factored(layer, ranks)
        moments = input_moments(task.model, name, layer, task.data, self.calibration_images)
        return self.in_sequence(layer, ranks, self.factors_for_outputs(weight_of(layer).detach(), ranks, moments))

    def factors_for_outputs(self, weight: Tensor, ranks: Ranks, moments: InputMoments) -> tuple[Tensor, ...]:
        """Return the two weights of that rank that change the outputs for inputs of these `moments` least."""
        (rank,) = ranks
        fitted = vertical_horizontal_for_outputs if weight.ndim == 4 else linear_for_outputs
        return fitted(weight, moments.second[0], rank)
