"""What a network costs before any timing: parameters to store and multiply-accumulates, layer by layer."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.deployment.kernels import csr
from compedu.evaluation import logits_of
from compedu.forms import Form, outside_forms, weight_of
from compedu.graph.copying import inference_copy
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
    """Return which of `holders` the module `name` is, or is a part of, or None."""
    if name in holders:
        return name
    forms = (path for path, layer in holders.items() if isinstance(layer, Form))
    return next((path for path in forms if not path or name.startswith(f"{path}.")), None)


def parameters(model: nn.Module) -> dict[str, int]:
    """Return the number of parameters of each layer, by its name: what a file must hold but for indices and codebooks.

    A masked layer has its kept weights, a block-circulant one its columns, CReLU its base filters, a factored one all
    factors; a weight of one bit counts as much as one of 32. Running statistics of batch norm are not learned, scales
    of quantized weights and activations belong to the codebook. A tensor that two layers share counts for the first.
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

    One image of `data` runs through a copy, and every product is counted where it is computed, from the shapes of its
    operands: those of a layer under its name, those between activations (attention) under the name of the module whose
    forward computes them. A form itself says what it needs for its output positions; the factors of a factored one are
    added up. `running` names the kernels of the deployed network: one that skips zeros needs only the kept weights.
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
    """Return a forward hook that adds what a form needs for one call to the count of the layer `name`."""

    def add(form: Form, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        positions = output.numel() // max(1, form.geometry.shape[0])
        counter.add(name, positions * int(weight_of(form).count_nonzero()) if sparse else form.macs(positions))

    return add


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the dense weights of all linear layers, convolutions and forms by name, detached."""
    layers = (nn.Linear, nn.Conv2d, Form)
    return {name: weight_of(layer).detach() for name, layer in holders(model).items() if isinstance(layer, layers)}


def relative_error(weight: Tensor, reference: Tensor) -> float | None:
    """Return ||weight - reference|| / ||reference|| (Frobenius norm); None where shapes differ or it is undefined."""
    if weight.shape != reference.shape or not bool(reference.any()):
        return None
    return float((weight - reference).norm() / reference.norm())
