"""Whether a network holds numbers that can be computed with."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compedu.errors import CompressionError
from compedu.forms import ActivationQuantizer, Form
from compedu.usable import refuse_unusable


def check_finite(model: nn.Module) -> None:
    """Raise `CompressionError` naming the first tensor of `model` that holds NaN or infinity.

    Infinity is legal in a buffer that is no statistic and belongs to no form: a mask of attention is -inf where it
    hides something. Tensors that cannot be computed with at all are refused as well.
    """
    refuse_unusable(model)
    for name, tensor, may_be_infinite in _numbers(model):
        wrong = tensor.isnan() if may_be_infinite else ~tensor.isfinite()
        if bool(wrong.any()):
            count = int(wrong.sum())
            raise CompressionError(
                f"{name} holds {count} value(s) that are not finite (NaN or infinity); such a network cannot be "
                "compressed: load intact weights or train again with a lower learning rate"
            )


def _numbers(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield the names and tensors of `model` that hold floating-point numbers, and whether infinity is legal there."""
    for path, module in model.named_modules():
        strict = isinstance(module, (Form, ActivationQuantizer, _NormBase))
        for own, free in ((module._parameters, False), (module._buffers, not strict)):
            for name, tensor in own.items():
                if tensor is not None and tensor.is_floating_point():
                    yield f"{path}.{name}".lstrip("."), tensor, free
