"""Hooks on layers that are gone when the work is done, also where it fails."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from torch import nn


@contextlib.contextmanager
def hooked(
    layers: Mapping[str, nn.Module], *, before: Callable | None = None, after: Callable | None = None
) -> Iterator[None]:
    """Run `before(name, layer, inputs)` and `after(name, layer, inputs, output)` at each call of a layer in the block.

    What they return, unless it is None, takes the place of the inputs or the output, as in torch's own forward hooks.
    """
    with contextlib.ExitStack() as handles:
        for name, layer in layers.items():
            if before is not None:
                handles.enter_context(layer.register_forward_pre_hook(partial(before, name)))
            if after is not None:
                handles.enter_context(layer.register_forward_hook(partial(after, name)))
        yield
