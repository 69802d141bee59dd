"""Block-circulant layers in the frequency domain, with the transform of the weight computed once."""

from torch import Tensor, nn

from compedu.forms import BlockCirculant
from compedu.forms.circulant import frequency_weight

NAME = "float32 FFT"


class FourierLayer(nn.Module):
    """A block-circulant layer that holds the transform of its weight; it runs as the form does, without gradients."""

    def __init__(self, form: BlockCirculant):
        super().__init__()
        self.form = form
        self.register_buffer("weight", frequency_weight(form.columns.detach(), form.geometry), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output for `input`."""
        return self.form.product(input, self.weight)
