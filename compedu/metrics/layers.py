"""The table of a report: one row for each layer that holds numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.files import FileMap
from compedu.files.inspection import HEADER
from compedu.forms import Form
from compedu.graph import batch_norm_pairs, fold_batch_norm
from compedu.metrics import costs
from compedu.metrics.report import LayerRow


@dataclass(frozen=True, eq=False)
class References:
    """The weights of a baseline by layer, as they are and with batch norm folded in; `norms` names the norm folded."""

    weights: dict[str, Tensor]
    folded: dict[str, Tensor]
    norms: dict[str, str]

    @classmethod
    def of(cls, model: nn.Module) -> "References":
        """Return the weights of `model`; those of a network that cannot be traced are not folded."""
        try:
            norms = dict(batch_norm_pairs(model))
            folded = costs.weights(fold_batch_norm(model))
        except CompressionError:
            norms = {}
            folded = {}
        return cls(costs.weights(model), folded, norms)

    def weight(self, name: str, model: nn.Module) -> Tensor | None:
        """Return the reference for the weight of layer `name` of `model`: the folded one where `model` is folded."""
        norm = self.norms.get(name)
        if norm is not None and isinstance(dict(model.named_modules()).get(norm), nn.Identity):
            return self.folded[name]
        return self.weights.get(name)


def layer_rows(
    model: nn.Module,
    written: FileMap,
    macs: Mapping[str, int],
    running: Mapping[str, str],
    references: References | None,
) -> tuple[LayerRow, ...]:
    """Return a row for each layer of `model`; their bytes and the header's add up to the file `written`."""
    holders = costs.holders(model)
    parameters = costs.parameters(model)
    weights = costs.weights(model)
    sizes = dict.fromkeys(holders, 0)
    for row in written.rows:
        if row.role != HEADER:
            sizes[costs.holder_of(row.layer, holders)] += row.bytes
    rows = []
    for name, layer in holders.items():
        weight = weights.get(name)
        reference = None if references is None else references.weight(name, model)
        rows.append(
            LayerRow(
                name=name,
                form=type(layer).__name__,
                shape=_shape(layer),
                bytes=sizes[name],
                parameters=parameters[name],
                bits_per_weight=None if weight is None else 8 * sizes[name] / weight.numel(),
                macs=macs.get(name),
                error=(
                    costs.relative_error(weight, reference)
                    if isinstance(layer, Form) and reference is not None
                    else None
                ),
                # A network of a single layer is deployed as a sequence, in which it is called "0".
                kernel=running.get(name, None if name else running.get("0")),
            )
        )
    return tuple(rows)


def _shape(layer: nn.Module) -> tuple[int, ...]:
    """Return the shape of the dense weight, or of the first tensor of any other module."""
    if isinstance(layer, Form):
        return tuple(layer.geometry.shape)
    return tuple(next(iter([*layer.parameters(recurse=False), *layer.buffers(recurse=False)])).shape)
