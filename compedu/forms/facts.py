"""What pictures, tables and reports ask of forms and blocks, so that they have to know none by its class."""

from torch import Tensor, nn


class FormFacts:
    """The facts of a form or block beside its kernel; each answer is None, or nothing, where the form does not say."""

    @property
    def factors(self) -> tuple[nn.Module, ...]:
        """The ordinary layers or forms in sequence that this layer is made of, which further methods may compress."""
        return ()

    @property
    def ranks(self) -> tuple[int, ...] | None:
        """The number of channels between each factor and the next."""
        return None

    @property
    def levels(self) -> int | None:
        """How many values a weight can take, for each scale if there are several."""
        return None

    def codes(self) -> Tensor | None:
        """Return which of its `levels` each weight has, whole numbers of the kernel's shape."""
        return None

    @property
    def grid_step(self) -> Tensor | None:
        """The step of an even grid around zero, broadcast against the kernel: a weight is its code times the step."""
        return None

    def weights_before_rounding(self) -> Tensor | None:
        """Return the weights that were rounded to the levels, of the kernel's shape."""
        return None

    def kept_weights(self) -> Tensor | None:
        """Return which weights are left of a pruned kernel, boolean, of the kernel's shape."""
        return None

    def stored_entries(self) -> Tensor | None:
        """Return at which places of the kernel the stored numbers stand, boolean; the others are copies of them."""
        return None

    def free_numbers(self) -> int:
        """Return how many numbers of the kernel are free, codes among them; no bias, no position, no code book."""
        own = sum(part.tensor.numel() for part in self.stored_weight().values() if part.role == "values")
        return own + sum(free_numbers_of(factor) for factor in self.factors)


def free_numbers_of(layer: nn.Module) -> int:
    """Return the free numbers of a form, or the weights of an ordinary layer."""
    return layer.free_numbers() if isinstance(layer, FormFacts) else layer.weight.numel()
