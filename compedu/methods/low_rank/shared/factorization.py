"""What all factorizations share: ranks, one budget for all layers, and the refusal of ranks that save nothing."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from compedu.errors import CompressionError, Skip
from compedu.forms import Factored, Geometry, weight_of
from compedu.knobs import PerLayer, knob, knobs, method
from compedu.methods.calibration import calibration_knob
from compedu.methods.layer_method import LayerByLayer, SelectiveMethod
from compedu.methods.layers import given_value
from compedu.methods.low_rank.shared.rank import Ranks, largest_saving_rank, rank_from, rank_knob
from compedu.methods.low_rank.shared.rank_budget import between, by_loss, rank_scan
from compedu.methods.low_rank.shared.unsuited import grouped
from compedu.methods.shared_budget import Scan, kept_scan, shared_out
from compedu.methods.task import Task

COUNTS = {2: "two", 3: "three", 4: "four"}


@method
class Factorization(LayerByLayer):
    """A method that replaces each layer by ordinary ones in sequence; the channels between them are its ranks.

    A subclass says which layers it takes, what the full ranks are, and how the factors are found.

    Why a layer stays is asked in this order: can it be factored at all (`obstacle`, of which a subclass changes
    `unsuited`, about the shape alone); does this call leave it alone (`left_alone`, asked only where one budget holds
    for all layers); would it be smaller at its ranks (`saves_nothing`); is it possible at these ranks (`impossible`).
    The first answer counts.
    """

    family: ClassVar[str] = "low_rank"
    identity_settings: ClassVar[dict[str, Any] | None] = {"rank": 1.0, "allow_larger": True}
    writes: ClassVar[bool] = False
    shared_budgets: ClassVar[tuple[str, ...]] = ("sensitivity",)  # budgets for all layers together
    # since version 1 a budget has ranks between measured ones, and spends what its steps leave over
    version: ClassVar[int] = 2
    unscanned: ClassVar[tuple[str, ...]] = ("rank", "budget", "allow_larger")  # knobs that no measured loss depends on

    rank: PerLayer[float | int] = rank_knob(
        default=0.25,
        help="rank kept in each layer, as a fraction of its full rank, rounded, and at least one",
        slider_range=(0.01, 0.75),
        log=True,
    )
    budget: str = knob(
        default="uniform",
        help="the same `rank` for all layers; or as many weights together as with `rank`, spent where each lowers the "
        "measured loss most",
        choices=("uniform", "sensitivity"),
    )
    allow_larger: bool = knob(default=False, help="also factorize layers that have more parameters afterwards")
    # The last layer has one row per class: at low rank it cannot separate all classes, which would mask the rest.
    layers: str = knob(default="-last", help=knobs(SelectiveMethod)["layers"].help)
    calibration_images: int = calibration_knob("training images that show the loss to budget='sensitivity', at most")

    def __post_init__(self):
        super().__post_init__()
        if self.budget in self.shared_budgets and not isinstance(self.rank, float):
            raise ValueError(
                f"{type(self).__name__}.rank must be one fraction when budget is {self.budget!r}, got {self.rank!r}: "
                "all layers together keep as many weights as with this fraction in each"
            )

    @property
    def needs(self) -> str:
        """The weights alone, unless a loss is measured."""
        return "calibration" if self.budget == "sensitivity" else "weights"

    def compress(self, task: Task) -> nn.Module:
        """Share out the ranks if one budget holds for all layers, then replace layer by layer."""
        task.open_attentions()
        if self.budget in self.shared_budgets:
            task.decided = self.shared_ranks(task)
        return LayerByLayer.compress(self, task)

    def obstacle(self, layer: nn.Module) -> str:
        """Return why `layer` cannot be factored, "" if it can."""
        return LayerByLayer.obstacle(self, layer) or self.unsuited(Geometry.of(layer))

    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return the layer as layers in sequence, at the ranks that `rank` or the budget gives it."""
        return self.factored(layer, self.ranks_for(task, name, layer))

    def factored(self, layer: nn.Module, ranks: Ranks) -> Factored:
        """Return the layers in sequence that come closest to the weight of `layer` at these ranks, if they can."""
        return self.in_sequence(layer, ranks, self.factors(weight_of(layer).detach(), ranks))

    def in_sequence(self, layer: nn.Module, ranks: Ranks, weights: tuple[Tensor, ...]) -> Factored:
        """Return the layers in sequence with these weights, of the type of `layer`; the last one has its bias."""
        geometry = Geometry.of(layer)
        made = [weight.to(weight_of(layer).dtype) for weight in weights]
        *chain, last = zip(self.chain(geometry, ranks), made, strict=True)
        bias = cast("Tensor | None", layer.bias)
        return Factored(geometry, *(one.layer(weight, None) for one, weight in chain), last[0].layer(last[1], bias))

    def ranks_for(self, task: Task, name: str, layer: nn.Module) -> Ranks:
        """Return the ranks of layer `name`, or raise `Skip` with the reason why it stays."""
        if self.budget not in self.shared_budgets:
            return self.checked_ranks(name, Geometry.of(layer), given_value(self.rank, name))
        if isinstance(decided := task.decided[name], str):
            raise Skip(decided)
        return decided

    def shared_ranks(self, task: Task) -> dict[str, Ranks | str]:
        """Return the ranks of each layer that one budget for all of them gives, or the reason why it stays.

        Together the layers keep at most as many weights as with `rank`, a fraction, in each of them, where a layer in
        which this would save nothing counts as it is. Layers that stay for another reason have no share.
        """
        layers = {name: layer for name, layer in task.selection()[0].items() if not self.obstacle(layer)}
        reasons = self.left_alone(task, layers)
        layers = {name: layer for name, layer in layers.items() if name not in reasons}
        found = self.choices_of(task, layers) if layers else Scan({}, {})
        most = sum(self.kept_numbers(Geometry.of(layers[name])) for name in found.choices)
        shares = shared_out(found.choices, most, "weights")
        stays = f"one budget for all layers ({self.budget}) leaves it as it is"
        return {**reasons, **found.reasons, **{name: ranks or stays for name, ranks in shares.items()}}

    def choices_of(self, task: Task, layers: Mapping[str, nn.Module]) -> Scan:
        """Return the ranks of each of `layers` that one budget has to choose from, and the layer as it is."""
        images = self.calibration_images
        scanned = kept_scan(self, task, layers, lambda: rank_scan(self, task, layers, images))
        layers = {name: layers[name] for name in scanned.choices}
        known = {name: {choice.value for choice in made} for name, made in scanned.choices.items()}

        def further(name: str, geometry: Geometry) -> list[Ranks]:
            return [ranks for ranks in self.equal_ranks(geometry) if ranks not in known[name]]

        equal = by_loss(self, task, layers, further, images).choices  # so that one budget can choose them too
        choices = {
            name: between(self, Geometry.of(layer), [*scanned.choices[name], *equal.get(name, ())])
            for name, layer in layers.items()
        }
        return Scan(choices, scanned.reasons)

    def kept_numbers(self, geometry: Geometry) -> int:
        """Return how many weights a layer has at the fraction `rank` of its full ranks: as now, if not fewer."""
        kept = [self.numbers(geometry, ranks) for ranks in self.equal_ranks(geometry)]
        return kept[0] if kept else math.prod(geometry.shape)

    def equal_ranks(self, geometry: Geometry) -> list[Ranks]:
        """Return the ranks at the fraction `rank` of the full ones, if they make a layer smaller."""
        fraction = cast(float, self.rank)  # a budget for all layers refuses ranks by layer
        ranks = tuple(rank_from(fraction, full) for full in self.full_ranks(geometry))
        return [ranks] if self.makes_smaller(geometry, ranks) else []

    def makes_smaller(self, geometry: Geometry, ranks: Ranks) -> bool:
        """Tell whether a layer can be factored at these ranks, and has fewer weights then."""
        fewer = self.numbers(geometry, ranks) < math.prod(geometry.shape)
        return fewer and not self.impossible(geometry, ranks)

    def left_alone(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, str]:
        """Return the names of `layers` that this method replaces at no rank, with the reasons."""
        return {}

    def checked_ranks(self, name: str, geometry: Geometry, value: float | int) -> Ranks:
        """Return the ranks for the `value` of `rank`; refuse those that save nothing, or are impossible.

        Where nothing is saved it raises `Skip` for a fraction, and `CompressionError` for an integer, which was meant
        for this very layer; `Skip` where the ranks are impossible.
        """
        full = self.full_ranks(geometry)
        ranks = tuple(rank_from(value, most) for most in full)
        if max(ranks) > min(full) and type(value) is int:
            most = f"at most rank {min(full)}" if self.allow_larger else self.saving(geometry)
            raise CompressionError(f"{self!r}: {name}: rank {value} is above its full rank; choose {most}")
        reason = self.saves_nothing(geometry, ranks)
        if reason and type(value) is int:
            raise CompressionError(f"{self!r}: {name}: {reason}; choose {self.saving(geometry)}")
        if reason:
            given = f"{value!r} of its full rank {', '.join(map(str, full))}"
            raise Skip(f"{reason} ({given}); choose {self.saving(geometry)}")
        if reason := self.impossible(geometry, ranks):
            raise Skip(reason)
        return ranks

    def saves_nothing(self, geometry: Geometry, ranks: Ranks) -> str:
        """Say why a layer would not be smaller at these ranks, "" if it would be, or may be larger."""
        dense = math.prod(geometry.shape)
        made = self.numbers(geometry, ranks)
        if self.allow_larger or made < dense:
            return ""
        even = self.break_even(geometry)
        if len(ranks) == 1:
            what = f"rank {ranks[0]} is not below its break-even rank {even:.1f}"
        else:
            what = f"ranks {', '.join(map(str, ranks))} save nothing (equal ranks break even at {even:.1f})"
        layers = COUNTS[len(self.chain(geometry, ranks))]
        return f"{what}: {layers} layers of {made} weights instead of {dense}"

    def saving(self, geometry: Geometry) -> str:
        """Say which ranks can be chosen: those that make a layer smaller, and those that `allow_larger` allows."""
        full = min(self.full_ranks(geometry))
        larger = f"with allow_larger=True at most rank {full}"
        if self.numbers(geometry, (1,) * len(self.full_ranks(geometry))) >= math.prod(geometry.shape):
            return f"{larger}, as no rank saves anything here"
        most = min(largest_saving_rank(self.break_even(geometry)), full)
        return f"at most rank {most}, or {'allow_larger=True' if most == full else larger}"

    def impossible(self, geometry: Geometry, ranks: Ranks) -> str:
        """Say why a layer cannot be factored at these ranks, however many weights it would have, "" if it can."""
        return ""

    def numbers(self, geometry: Geometry, ranks: Ranks) -> int:
        """Return how many weights the layers in sequence have."""
        return sum(math.prod(one.shape) for one in self.chain(geometry, ranks))

    def unsuited(self, geometry: Geometry) -> str:
        """Say why layers of this geometry are not factored, "" if they are."""
        return grouped(geometry, "layers in sequence")

    @abstractmethod
    def full_ranks(self, geometry: Geometry) -> Ranks:
        """Return the ranks from which on the factors can express every weight."""

    @abstractmethod
    def break_even(self, geometry: Geometry) -> float:
        """Return the rank, the same for all if there are several, at which the factors are as large as the layer."""

    @abstractmethod
    def chain(self, geometry: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """Return the geometries of the layers in sequence."""

    @abstractmethod
    def factors(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        """Return the weights of the layers in sequence, of the shapes in `chain`."""
