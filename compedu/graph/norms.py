"""Batch norms, and what some of them do after the normalization: a subclass may contain an activation."""

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from compedu.graph.coupling import BATCH_NORMS
from compedu.graph.own_hooks import has_own_forward

PROBE = 4  # positions of each channel on which a subclass is tested


def behind(norm: nn.Module) -> nn.Module | None:
    """Return what `norm` does after a batch normalization in evaluation mode: its own modules, in sequence.

    That is an identity for torch's batch norms, and a sequence for a subclass such as timm's BatchNormAct2d, whose
    modules must return on random inputs what the subclass itself returns. None for every other module, and for one with
    a forward set on it.
    """
    if has_own_forward(norm):
        return None
    if type(norm) in BATCH_NORMS:
        return nn.Identity()
    if not isinstance(norm, BATCH_NORMS) or norm.running_mean is None:
        return None
    parts = nn.Sequential(OrderedDict(norm.named_children()))
    return parts if _is_followed_by(norm, parts) else None


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether `module` is a batch norm of torch, or one that only adds known modules after it."""
    return behind(module) is not None


def _is_followed_by(norm: nn.Module, parts: nn.Sequential) -> bool:
    """Return whether `norm` equals a batch normalization followed by `parts`."""
    places = next(index for index, kind in enumerate(BATCH_NORMS, 1) if isinstance(norm, kind))
    shape = (2, norm.num_features, *[PROBE] * places)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(norm.running_mean)
    norm, parts = copy.deepcopy((norm, parts))
    try:
        with torch.inference_mode():
            plain = F.batch_norm(
                x.clone(), norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
            )
            return torch.equal(norm.eval()(x), parts.eval()(plain))
    except Exception:  # the forward of a subclass may raise anything
        return False
