"""What pictures, tables and reports ask of forms and blocks, so that they need not know their classes."""

from torch import Tensor, nn


class FormFacts:
    """The facts of a form or block besides its weight; each answer is None, or empty, where the form does not say."""

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
        """Return which of the `levels` each weight has, integers of the weight's shape."""
        return None

    @property
    def code_range(self) -> tuple[Tensor, Tensor] | None:
        """The smallest and the largest code on the grid of `grid_step`, broadcast against the weight."""
        return None

    @property
    def grid_step(self) -> Tensor | None:
        """The step of a uniform grid around zero, broadcast against the weight, which is its codes times the step."""
        return None

    @property
    def level_values(self) -> Tensor | None:
        """The values of the levels in the order of their codes, of which each weight is one times its scale."""
        return None

    def weight_scales(self) -> Tensor | None:
        """Return what the `level_values` are multiplied by for each weight, of the weight's shape."""
        return None

    def weights_before_rounding(self) -> Tensor | None:
        """Return the weights before rounding to the levels, of the weight's shape."""
        return None

    def kept_weights(self) -> Tensor | None:
        """Return which weights of a pruned layer are kept, boolean, of the weight's shape."""
        return None

    def stored_entries(self) -> Tensor | None:
        """Return which entries of the weight are stored, boolean; the others are copies of them."""
        return None

    def free_numbers(self) -> int:
        """Return how many numbers of the weight are free, codes included, but no biases, positions or codebooks."""
        own = sum(part.tensor.numel() for part in self.stored_weight().values() if part.role == "values")
        return own + sum(free_numbers_of(factor) for factor in self.factors)


def free_numbers_of(layer: nn.Module) -> int:
    """Return the free numbers of a form, or the weights of an ordinary layer."""
    return layer.free_numbers() if isinstance(layer, FormFacts) else layer.weight.numel()
