"""Walking over a network that holds forms: a form counts as one layer, whatever it is made of."""

from collections.abc import Iterator

from torch import nn

from compedu.forms.form import Form


def outside_forms(model: nn.Module, *others: type[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield names and modules as `named_modules` does, forms included, but nothing inside a form.

    Modules of the classes `others` count as forms do.
    """
    inside: list[str] = []
    for name, module in model.named_modules():
        if any(map(name.startswith, inside)):
            continue
        if isinstance(module, (Form, *others)):
            inside.append(f"{name}." if name else "")
        yield name, module


def outermost_forms(model: nn.Module) -> list[str]:
    """Return the names of the forms of `model` that are not inside another form."""
    return [name for name, module in outside_forms(model) if isinstance(module, Form)]
