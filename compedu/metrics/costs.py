"""What a network costs before any clock runs: numbers to store, multiply-accumulates, layer by layer."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.deployment.kernels import csr
from compedu.evaluation import logits_of
from compedu.forms import Form, outside_forms, weight_of
from compedu.graph.trace import inference_copy
from compedu.metrics.counting import Counter, Macs, in_simple_steps

PARAMETER_ROLES = ("values", "bias")


def holders(model: nn.Module) -> dict[str, nn.Module]:
    """Return by name, in order, the outermost forms of `model` and every other module with tensors of its own."""
    found: dict[str, nn.Module] = {}
    for name, module in outside_forms(model):
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if isinstance(module, Form) or own:
            found[name] = module
    return found


def holder_of(name: str, holders: Mapping[str, nn.Module]) -> str | None:
    """Return which of `holders` the module called `name` is or is a part of, or None."""
    if name in holders:
        return name
    forms = (path for path, layer in holders.items() if isinstance(layer, Form))
    return next((path for path in forms if not path or name.startswith(f"{path}.")), None)


def parameters(model: nn.Module) -> dict[str, int]:
    """Return how many numbers each layer learned, by its name: what a file must hold but for indices and code books.

    A masked layer has its kept weights, a block-circulant one its columns, CReLU its base filters, a factored one all
    factors; a weight of one bit counts as much as one of 32. Running statistics of batch norm are not learned, scales
    of quantized weights and activations belong to the code book. A tensor that two layers share counts for the first.
    """
    counts = {}
    seen = set()
    for name, holder in holders(model).items():
        counts[name] = 0
        for module in holder.modules() if isinstance(holder, Form) else (holder,):
            if isinstance(module, Form):
                counts[name] += sum(p.tensor.numel() for p in module.stored().values() if p.role in PARAMETER_ROLES)
            else:
                new = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in seen}
                seen |= new.keys()
                counts[name] += sum(new.values())
    return counts


def macs(model: nn.Module, data: Dataset, running: Mapping[str, str] | None = None) -> Macs:
    """Return the multiply-accumulates of `model` for one image, by the name of the layer or other module.

    One image of `data` runs through a copy, and every product is counted where it is made, from the shapes that it
    meets: those of a layer by its name, those between activations (attention) by the name of the module whose forward
    makes them. A form says itself what it needs for its output positions, the factors of one that has some are added
    up. `running` names the kernels of the deployed network: one that skips zeros needs no more than the weights that
    are left.
    """
    copy = inference_copy(model)
    counter = Counter()
    known = holders(copy)
    for name, module in copy.named_modules():
        holder = holder_of(name, known)
        part = isinstance(module, Form) and not module.factors
        if part:
            sparse = (running or {}).get(holder) == csr.NAME
            module.register_forward_hook(_formula(counter, holder, sparse))
        counter.watch(module, None if part else name if holder is None else holder)
    with in_simple_steps(), counter:
        logits_of(copy, data.example, data)
    return Macs(counter.counts, tuple(counter.uncounted))


def _formula(counter: Counter, name: str, sparse: bool) -> Callable[..., None]:
    """Return a forward hook that adds what a form needs for one call to that of the layer `name`."""

    def add(form: Form, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        positions = output.numel() // max(1, form.geometry.shape[0])
        counter.add(name, positions * int(weight_of(form).count_nonzero()) if sparse else form.macs(positions))

    return add


def kernels(model: nn.Module) -> dict[str, Tensor]:
    """Return the dense kernels of all linear layers, convolutions and forms by name, detached."""
    layers = (nn.Linear, nn.Conv2d, Form)
    return {name: weight_of(layer).detach() for name, layer in holders(model).items() if isinstance(layer, layers)}


def relative_error(kernel: Tensor, reference: Tensor) -> float | None:
    """Return ||kernel - reference|| / ||reference|| (Frobenius norm); None where shapes differ or it is undefined."""
    if kernel.shape != reference.shape or not bool(reference.any()):
        return None
    return float((kernel - reference).norm() / reference.norm())
