"""Texts that name a network or data set with its knobs, such as "lenet5(width=0.5)"."""

import ast


def text(name: str, values: dict) -> str:
    """Return "name(knob=value, ...)": `parse` gives both back."""
    return f"{name}({', '.join(f'{knob}={value!r}' for knob, value in values.items())})"


def parse(spec: str) -> tuple[str, dict]:
    """Split "name(knob=value, ...)" into name and values; raise `ValueError` for any other text."""
    try:
        tree = ast.parse(spec.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args:
            return tree.func.id, {item.arg: ast.literal_eval(item.value) for item in tree.keywords if item.arg}
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f'{spec!r} cannot be read; write a name such as "lenet5", or "lenet5(width=0.5)"')
