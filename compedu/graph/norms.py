"""Batch norms, and what some of them do behind the normalization: a subclass may carry an activation inside."""

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from compedu.graph.coupling import BATCH_NORMS
from compedu.graph.own_hooks import has_own_forward

PROBE = 4  # positions of each channel that a subclass is tried on


def behind(norm: nn.Module) -> nn.Module | None:
    """Return what `norm` does behind a batch normalization in evaluation mode: its own modules, one after the other.

    That is an identity for torch's batch norms, and a sequence for a subclass such as timm's BatchNormAct2d, whose
    modules must give on numbers at random what the subclass itself gives. None for every other module,
    and for one with a forward of its own.
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
    """Return whether `module` is a batch norm of torch, or one that only has known modules behind it."""
    return behind(module) is not None


def _is_followed_by(norm: nn.Module, parts: nn.Sequential) -> bool:
    """Return whether `norm` gives what a batch normalization and then `parts` give."""
    places = next(index for index, kind in enumerate(BATCH_NORMS, 1) if isinstance(norm, kind))
    shape = (2, norm.num_features, *[PROBE] * places)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(norm.running_mean)
    norm, parts = copy.deepcopy((norm, parts))
    try:
        with torch.inference_mode():
            plain = F.batch_norm(
                x.clone(), norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
            return torch.equal(norm.eval()(x), parts.eval()(plain))
    except Exception:  # a forward of its own may raise anything at all
        return False
