"""A training in several stages that is cancelled: nothing of the given network is changed, nothing is left on it."""

import pytest
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.errors import Cancelled
from compedu.hashing import model_digest
from compedu.methods import Method
from compedu.training import listening


def assert_cancelled_at(step: int, method: Method, model: nn.Module, data: Dataset) -> None:
    """Cancel `method` after that many steps, all stages counted together."""

    def stop(told):
        if told.done == step:
            raise Cancelled

    before = model_digest(model)
    with pytest.raises(Cancelled), listening(stop):
        method(model, data)
    assert model_digest(model) == before and not any(module._forward_hooks for module in model.modules())
