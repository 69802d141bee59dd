"""Net2Deeper: a layer that is the identity is put behind each layer, and the deeper network computes the same."""

import copy
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compedu.errors import Skip
from compedu.forms import Deepened, Geometry
from compedu.forms.block import DEEPEST, same_size
from compedu.graph import batch_norm_pairs, layer_calls, only_consumer, trace
from compedu.graph.nodes import called_name, is_relu, is_relu6, module_of
from compedu.graph.own_hooks import has_hooks, has_own_forward
from compedu.graph.trace import owners_read_apart
from compedu.knobs import knob, method
from compedu.methods.layer_method import LayerByLayer
from compedu.methods.layers import keep_frozen
from compedu.methods.task import Task


def identity_weight(geometry: Geometry) -> Tensor:
    """Return the weight of `geometry`, as many outputs as inputs, with which a layer returns its input.

    >>> identity_weight(Geometry("conv2d", (2, 2, 1, 3), padding=(0, 1))).squeeze().tolist()
    [[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """
    out, inside, *window = geometry.shape
    weight = torch.zeros(geometry.shape)
    middle = [side // 2 for side in window]
    outputs = torch.arange(out)
    weight[(outputs, outputs % inside, *middle)] = 1  # input j of each group is its output j
    return weight


def rectified_moments(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of max(z, 0) for normal z of this `mean` and standard `deviation`; same shapes.

    >>> [round(float(moment), 4) for moment in rectified_moments(torch.zeros(()), torch.ones(()))]
    [0.3989, 0.3408]
    """
    ratio = mean / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)
    above = torch.special.ndtr(ratio)
    density = deviation * torch.exp(-ratio.square() / 2) / (2 * torch.pi) ** 0.5
    first = mean * above + density
    second = (mean.square() + deviation.square()) * above + mean * density
    return first, (second - first.square()).clamp_min(0)  # rounding may leave a little less than no variance


def become_identity(norm: _BatchNorm) -> None:
    """Make a batch norm, in place, return in evaluation mode what it gets after its former self and a ReLU.

    Its statistics become those that its inputs have if its former outputs are normally distributed, with its shift and
    scale as their mean and deviation: then batch statistics, in training mode, change little as well.
    """
    mean, variance = rectified_moments(norm.bias.detach().double(), norm.weight.detach().double().abs())
    means = norm.get_buffer("running_mean")
    variances = norm.get_buffer("running_var")
    with torch.no_grad():
        means.copy_(mean)
        variances.copy_(variance)
        # From what was stored: scale and division must cancel out.
        norm.weight.copy_((variances.double() + norm.eps).sqrt())
        norm.bias.copy_(means)


def deepened(layer: nn.Conv2d | nn.Linear, norm: _BatchNorm | None, depth: int) -> Deepened:
    """Return the block that does what `layer`, its batch norm and a ReLU do, with `depth` layers that are the identity.

    All tensors are its own. Raises `ValueError` for a window of an even size.
    """
    geometry = Geometry.of(layer)
    with torch.device("meta"):
        block = Deepened(geometry, norm is not None, depth)
    weight = identity_weight(same_size(geometry)).to(layer.weight)
    bias = None if layer.bias is None else torch.zeros_like(layer.bias)
    block.layer = geometry.layer(layer.weight, layer.bias)
    keep_frozen(layer, block.layer)
    for place in range(depth):
        block.further[place] = same_size(geometry).layer(weight, bias)
        if norm is not None:
            block.norms[place] = copy.deepcopy(norm)
            if place:  # the first one is the layer's own
                become_identity(cast(_BatchNorm, block.norms[place]))
    return block


@method
class Net2Deeper(LayerByLayer):
    r"""Put layers behind each layer before a ReLU, such that the deeper network computes what the given one does.

    $\phi(W x) = \phi(I\,\mathrm{ReLU}(W x))$ for an activation with $\phi(\mathrm{ReLU}(x)) = \phi(x)$, which ReLU
    and ReLU6 are: `depth` new layers, each behind a ReLU, start as the identity matrix, those of a convolution as
    filters with a single 1 in their middle. A ReLU6 of the network stays the last, behind all of them. Behind a batch
    normalization each new layer gets one of its own, which undoes its normalization by its scale and shift; its
    statistics are those of a rectified normal distribution, where the paper measures them. The network becomes larger:
    this is the start of a training, not a compression.
    Stored: the layers and the new ones, dense, at full precision.
    Skips: layers whose output is read by anything but a ReLU or ReLU6, directly or through a batch normalization with
    scale, shift and running statistics, such as those that produce the network's output; layers that are used more
    than once; convolutions with an even window; layers, batch normalizations and ReLU modules with hooks; layers that
    are already compressed.
    Paper: Chen, Goodfellow, Shlens 2016, Net2Net, arXiv:1511.05641.
    """

    family: ClassVar[str] = "distillation"
    identity_settings: ClassVar[dict[str, Any]] = {"depth": 0}

    depth: int = knob(
        default=1, help="how many layers are put behind each layer", low=0, high=DEEPEST, slider_range=(0, 4)
    )

    def compress(self, task: Task) -> nn.Module:
        """Deepen the layers, then make the batch norms behind them the identity."""
        model = LayerByLayer.compress(self, task)
        for name, norm in task.decided["norms"].items():
            if isinstance(model.get_submodule(name), Deepened):
                become_identity(cast(_BatchNorm, model.get_submodule(norm)))
        return model

    def chosen(self, task: Task) -> dict[str, nn.Module]:
        """Return the selected layers that a ReLU or ReLU6 follows; record why others stay."""
        obstacles = Following(task.model)
        layers = {}
        for name, layer in task.selected_layers().items():
            if reason := self.obstacle(layer) or obstacles.why_not(name):
                task.skip(name, reason)
            else:
                layers[name] = layer
        task.decided = {"norms": {name: norm for name, norm in obstacles.norms.items() if name in layers}}
        return layers

    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return `layer` with its batch norm if it has one, ReLU and layers that are the identity behind it."""
        if not self.depth:
            return layer
        norm = task.decided["norms"].get(name)
        own = None if norm is None else cast(_BatchNorm, task.model.get_submodule(norm))
        try:
            return deepened(cast(nn.Conv2d | nn.Linear, layer), own, self.depth)
        except ValueError as reason:
            raise Skip(str(reason)) from reason


class Following:
    """What follows the layers of a network: a batch norm or none, a ReLU or none."""

    def __init__(self, model: nn.Module):
        self.norms = dict(batch_norm_pairs(model))
        traced = trace(model)
        self.modules = dict(traced.named_modules())
        self.calls = layer_calls(traced)
        self.apart = owners_read_apart(traced)

    def why_not(self, layer: str) -> str:
        """Return why nothing can be put behind `layer` without a change, "" if it can."""
        calls = self.calls.get(layer, [])
        if len(calls) != 1:
            return f"is used {len(calls)} times" if calls else "the network does not call it as a separate layer"
        if has_hooks(self.modules[layer]):
            return "has forward hooks, which would see the output of the layer behind it"
        reader = only_consumer(calls[0])
        norm = None if reader is None else module_of(reader, self.modules)
        if reader is not None and type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d):
            return self.why_not_rectified(only_consumer(reader)) or self.why_not_normalized(layer, called_name(reader))
        return self.why_not_rectified(reader)

    def why_not_rectified(self, reader: fx.Node | None) -> str:
        """Return why `reader` is not an activation that is the same behind a further ReLU, "" if it is."""
        if reader is None or not (is_relu(reader, self.modules) or is_relu6(reader, self.modules)):
            return "its output is not read by a ReLU or ReLU6 alone, which would be the same behind a further ReLU"
        module = module_of(reader, self.modules)
        if module is not None and (has_hooks(module) or has_own_forward(module)):
            return (
                f"the ReLU {reader.target!r} has forward hooks or a forward of its own, which would see another input"
            )
        return ""

    def why_not_normalized(self, layer: str, norm: str) -> str:
        """Return why the batch norm called `norm` of `layer` cannot become the identity, "" if it can."""
        module = cast(_BatchNorm, self.modules[norm])
        if (uses := len(self.calls[norm])) > 1:
            return f"its batch norm {norm!r} is not that of this layer alone, but used {uses} times"
        if module.running_mean is None:
            return f"its batch norm {norm!r} has no running statistics"
        if not module.affine:
            return f"its batch norm {norm!r} has no scale and shift"
        if has_hooks(module):
            return f"its batch norm {norm!r} has forward hooks, which would see another input"
        if read := self.apart & {layer, norm}:
            return f"the network reads tensors of {', '.join(sorted(read))} directly"
        return "" if layer in self.norms else f"its batch norm {norm!r} is not known to normalize each of its outputs"
