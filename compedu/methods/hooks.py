"""Forward hooks on layers, removed at the end of a block, also after an error."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn


@contextlib.contextmanager
def hooked(
    layers: Mapping[str, nn.Module], *, before: Callable | None = None, after: Callable | None = None
) -> Iterator[None]:
    """Run `before(name, layer, inputs)` and `after(name, layer, inputs, output)` at each call of a layer in the block.

    What they return, unless it is None, replaces the inputs or the output, as with torch's own forward hooks. Keyword
    arguments of the call are appended to its inputs.
    """
    with contextlib.ExitStack() as handles:
        for name, layer in layers.items():
            if before is not None:
                hook = partial(_before, partial(before, name))
                handles.enter_context(layer.register_forward_pre_hook(hook, with_kwargs=True))
            if after is not None:
                hook = partial(_after, partial(after, name))
                handles.enter_context(layer.register_forward_hook(hook, with_kwargs=True))
        yield


def _before(call: Callable, layer: nn.Module, inputs: tuple, named: dict[str, Any]) -> tuple[tuple, dict] | None:
    changed = call(layer, (*inputs, *named.values()))
    if changed is None:
        return None
    return changed if isinstance(changed, tuple) else (changed,), {}


def _after(call: Callable, layer: nn.Module, inputs: tuple, named: dict[str, Any], output: Any) -> Any:
    return call(layer, (*inputs, *named.values()), output)
