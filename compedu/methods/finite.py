"""Whether all values of a network are finite."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compedu.errors import CompressionError
from compedu.forms import ActivationQuantizer, Form
from compedu.usable import refuse_unusable

INTACT = "such a network cannot be compressed: load intact weights or train again with a lower learning rate"


def check_finite(model: nn.Module, where: str = "", cure: str = INTACT) -> None:
    """Raise `CompressionError` naming the first tensor of `model` that holds NaN or infinity, and the `cure`.

    Infinity is legal in a buffer that is neither a statistic of a norm nor part of a form: an attention mask is -inf at
    masked positions. Tensors that cannot be computed with at all are refused as well.
    """
    refuse_unusable(model)
    for name, tensor, may_be_infinite in _values(model):
        wrong = tensor.isnan() if may_be_infinite else ~tensor.isfinite()
        if bool(wrong.any()):
            count = int(wrong.sum())
            raise CompressionError(
                f"{where}{name} holds {count} value(s) that are not finite (NaN or infinity); {cure}"
            )


def _values(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield the names and floating-point tensors of `model`, and whether infinity is legal in each."""
    for path, module in model.named_modules():
        strict = isinstance(module, (Form, ActivationQuantizer, _NormBase))
        for own, free in ((module._parameters, False), (module._buffers, not strict)):
            for name, tensor in own.items():
                if tensor is not None and tensor.is_floating_point():
                    yield f"{path}.{name}".lstrip("."), tensor, free
