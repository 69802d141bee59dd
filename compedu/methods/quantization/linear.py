"""Linear quantization: weights, and optionally activations, become integers times a scale."""

from torch import nn

from compedu.forms import Quantized
from compedu.knobs import method
from compedu.methods.quantization.shared.weight_quantization import WeightQuantization
from compedu.methods.task import Task


@method
class LinearQuantization(WeightQuantization):
    r"""Round weights, and optionally activations, to evenly spaced levels.

    $\hat w = s\,q$ with $q = \mathrm{clip}(\mathrm{round}(w / s), -q_{\max}, q_{\max})$, $q_{\max} = 2^{b-1} - 1$; with
    one bit $\hat w = s\,\mathrm{sign}(w)$ and $s = \mathrm{mean}\,|w|$. Activations, and weights on an affine grid:
    $\hat x = s\,(q - z)$ with $q = \mathrm{clip}(\mathrm{round}(x / s) + z, 0, 2^b - 1)$. Batch normalization is
    folded into its layer first.
    Stored: the codes, $b$ bits each; the scales and zero-points; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Jacob et al. 2018, Quantization and training of neural networks for efficient integer-arithmetic-only
    inference, arXiv:1712.05877, sections 2 and 3; Vanhoucke, Senior, Mao 2011, Improving the speed of neural networks
    on CPUs; one bit: Rastegari et al. 2016, arXiv:1603.05279, section 3.1.
    """

    @property
    def needs(self) -> str:
        """Weights alone; training images to calibrate the activations, or with a budget of bits."""
        return "weights" if self.activation_bits == 0 and self.budget == "uniform" else "calibration"

    def form_for(self, task: Task, name: str, layer: nn.Module) -> Quantized:
        """Return the layer with the nearest codes."""
        return self.scaled(name, layer)
