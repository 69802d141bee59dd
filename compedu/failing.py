"""Where in a network an error was raised: in which layer, and whether by one of its hooks."""

from collections.abc import Callable
from types import CodeType, TracebackType

import torch
from torch import nn

from compedu.errors import first_line


def raised_by_hook(model: nn.Module, error: BaseException) -> str | None:
    """Return "a hook of LAYER raised ERROR: MESSAGE" where `error` comes out of a hook in `model`, else None."""
    names = {id(module): name for name, module in model.named_modules()}
    calling: nn.Module | None = None
    found: nn.Module | None = None
    place: TracebackType | None = error.__traceback__
    while place is not None:
        frame = place.tb_frame
        if frame.f_code.co_filename == nn.modules.module.__file__:
            calling = frame.f_locals.get("self", calling)
        elif calling is not None:
            found = calling if frame.f_code in set(map(_code, _hooks(calling))) else found
            calling = None
        place = place.tb_next
    if found is None:
        return None
    name = names.get(id(found), "") or "the network"
    return f"a hook of {name} ({type(found).__name__}) raised {type(error).__name__}: {first_line(error)}"


def _hooks(module: nn.Module) -> list[Callable]:
    everywhere = torch.nn.modules.module
    return [
        *module._forward_pre_hooks.values(),
        *module._forward_hooks.values(),
        *everywhere._global_forward_pre_hooks.values(),
        *everywhere._global_forward_hooks.values(),
    ]


def _code(hook: Callable) -> CodeType | None:
    while hasattr(hook, "func"):  # functools.partial
        hook = hook.func
    return getattr(hook, "__code__", None) or getattr(type(hook).__call__, "__code__", None)
