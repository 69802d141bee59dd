"""torch's multi-head attention with its projections as layers of their own, which methods can compress."""

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

# What torch holds as bare parameters: the layer that each weight becomes, and the bias that belongs to it.
PROJECTIONS = {
    "in_proj": ("in_proj_weight", "in_proj_bias"),
    "q_proj": ("q_proj_weight", None),
    "k_proj": ("k_proj_weight", None),
    "v_proj": ("v_proj_weight", None),
}
LINEAR = (nn.Linear, NonDynamicallyQuantizableLinear)  # the second, torch's output projection, computes the same


class OpenAttention(nn.MultiheadAttention):
    """Multi-head attention whose input projections are linear layers or forms; it computes what torch's own does.

    torch reads the weights of the projections and never calls them, so their inputs are not rounded.
    """

    @classmethod
    def of(cls, attention: nn.MultiheadAttention) -> "OpenAttention":
        """Return `attention` with its projections as layers, which hold the same parameters."""
        opened = cls.__new__(cls)
        vars(opened).update(vars(attention))
        opened._parameters = dict(attention._parameters)
        opened._modules = dict(attention._modules)
        for layer, (weight, bias) in PROJECTIONS.items():
            if (tensor := opened._parameters.pop(weight)) is not None:
                opened._modules[layer] = _linear(tensor, opened._parameters.pop(bias, None))
        return opened

    def _weight(self, layer: str) -> Tensor | None:
        return self._modules[layer].weight if layer in self._modules else None

    @property
    def in_proj_weight(self) -> Tensor | None:
        """The weight for queries, keys and values together, (3 embed_dim, embed_dim), or None."""
        return self._weight("in_proj")

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The bias of all input projections, (3 embed_dim,), or None."""
        return self._modules["in_proj"].bias if "in_proj" in self._modules else self._parameters["in_proj_bias"]

    @property
    def q_proj_weight(self) -> Tensor | None:
        """The weight for queries, (embed_dim, embed_dim), where keys or values have another size; else None."""
        return self._weight("q_proj")

    @property
    def k_proj_weight(self) -> Tensor | None:
        """The weight for keys, (embed_dim, kdim), where they or values have another size than queries; else None."""
        return self._weight("k_proj")

    @property
    def v_proj_weight(self) -> Tensor | None:
        """The weight for values, (embed_dim, vdim), where they or keys have another size than queries; else None."""
        return self._weight("v_proj")


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = weight
    layer.bias = bias
    return layer
