"""What a network is trained for: the loss of its outputs, and which of its answers are correct."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from compedu.errors import CompressionError

CLASSIFICATION = "classification"
REGRESSION = "regression"
EMBEDDING = "embedding"
KINDS = (CLASSIFICATION, REGRESSION, EMBEDDING)
CHANGES = ("shift", "mirror")  # of training images, as the knobs of a recipe are called
ROWS = 1024  # images whose distances to all others are in memory at once


@dataclass(frozen=True)
class Objective(ABC):
    """What the outputs (N, K) of a network are for; each image has a target, and its answer is correct or not.

    `unchanged_by` names the changes of a training image, of "shift" and "mirror", that leave its target as it is.
    """

    kind: ClassVar[str]
    one_by_one: ClassVar[bool] = True  # whether an answer is correct without a look at those of other images

    unchanged_by: tuple[str, ...] = field(default=CHANGES, kw_only=True)

    @property
    @abstractmethod
    def outputs(self) -> int | None:
        """The number K of outputs that a network needs; None for as many as there are classes."""

    @abstractmethod
    def refuse_targets(self, targets: Tensor, classes: int, where: str) -> None:
        """Raise `CompressionError`, which begins with `where`, for targets that are none of this objective."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of outputs (N, K), the mean over the images."""
        return self.losses(outputs, targets).mean()

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image (N,); `CompressionError` where single images have none."""

    @abstractmethod
    def answers(self, outputs: Tensor) -> Tensor:
        """Return the answers (N, ...) that outputs (N, K) give."""

    @abstractmethod
    def correct(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Tell of each of `answers` (N, ...) whether it is correct (N,)."""

    @property
    @abstractmethod
    def criterion(self) -> str:
        """When an answer is correct, in words."""

    def comparable(self, outputs: Tensor) -> Tensor:
        """Return outputs (N, K) in units in which squared distances between them weigh all outputs alike."""
        return outputs


@dataclass(frozen=True)
class Classification(Objective):
    """Name the class of an image: outputs are logits, targets the numbers of classes, int64 (N,)."""

    kind: ClassVar[str] = CLASSIFICATION

    @property
    def outputs(self) -> None:
        """As many as there are classes."""
        return None

    def refuse_targets(self, targets: Tensor, classes: int, where: str) -> None:
        """Raise `CompressionError` for targets that are not numbers of classes."""
        refuse_other_than_labels(targets, classes, where)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy in nats."""
        return F.cross_entropy(outputs, targets)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy of each image in nats."""
        return F.cross_entropy(outputs, targets, reduction="none")

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the class of the largest logit (N,)."""
        return outputs.argmax(1)

    def correct(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Tell whether the classes are those of the labels."""
        return answers == targets

    @property
    def criterion(self) -> str:
        """The usual one of a classification."""
        return "the largest logit belongs to the right class"


CLASSES = Classification()  # the objective of data sets unless they say otherwise


@dataclass(frozen=True)
class Regression(Objective):
    """Tell quantities of an image, one for each output; targets are floats (N, K).

    An answer is correct if each quantity is within its tolerance, in the units of the quantity. The tolerance is also
    the unit of the loss, so that quantities in different units weigh alike. A shifted or mirrored image is taken to
    have other quantities, unless `unchanged_by` names the change.
    """

    kind: ClassVar[str] = REGRESSION

    quantities: tuple[str, ...]
    tolerances: tuple[float, ...]
    unchanged_by: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self):
        if not self.quantities or len(self.quantities) != len(self.tolerances):
            raise CompressionError(
                f"Regression needs a tolerance for each quantity, got quantities {self.quantities} and tolerances "
                f"{self.tolerances}"
            )
        if not all(0 < tolerance < float("inf") for tolerance in self.tolerances):
            raise CompressionError(f"Regression.tolerances must be above 0, got {self.tolerances}")
        if not isinstance(self.unchanged_by, tuple) or not set(self.unchanged_by) <= set(CHANGES):
            raise CompressionError(f"Regression.unchanged_by is a tuple of {CHANGES}, got {self.unchanged_by!r}")

    @property
    def outputs(self) -> int:
        """One for each quantity."""
        return len(self.quantities)

    def refuse_targets(self, targets: Tensor, classes: int, where: str) -> None:
        """Raise `CompressionError` for targets that are not a finite number for each quantity."""
        if targets.ndim != 2 or targets.shape[1] != self.outputs or not targets.is_floating_point():
            raise CompressionError(
                f"{where} has targets {tuple(targets.shape)} of {targets.dtype}; a regression of "
                f"{', '.join(self.quantities)} needs floats (N, {self.outputs})"
            )
        if not bool(targets.isfinite().all()):
            raise CompressionError(f"{where} has targets that are not finite")

    def comparable(self, outputs: Tensor) -> Tensor:
        """Return the outputs in units of their tolerances."""
        return outputs / outputs.new_tensor(self.tolerances)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return half the squared errors in units of the tolerances, the mean over the quantities (N,)."""
        return 0.5 * self.comparable(outputs - targets).square().mean(1)

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the quantities (N, K)."""
        return outputs

    def correct(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Tell whether each quantity is within its tolerance."""
        return (self.comparable(answers - targets).abs() <= 1).all(1)

    @property
    def criterion(self) -> str:
        """The tolerances."""
        parts = zip(self.quantities, self.tolerances, strict=True)
        return ", ".join(f"{name} within {tolerance:g}" for name, tolerance in parts)


@dataclass(frozen=True)
class Embedding(Objective):
    """Place images of one class near each other, and others apart; targets are numbers of classes, int64 (N,).

    Outputs are directions: their lengths do not count. The loss is over pairs of a batch, and depends on its size; an
    answer is correct if the nearest of all other images is of the same class (recall at 1). Answers are
    therefore not independent of each other, as intervals and tests of an accuracy suppose: these are approximate.
    """

    kind: ClassVar[str] = EMBEDDING
    one_by_one: ClassVar[bool] = False

    dimensions: int = 16
    margin: float = 1.0

    def __post_init__(self):
        if self.dimensions < 2 or not 0 < self.margin <= 2:
            raise CompressionError(
                f"Embedding needs at least 2 dimensions and a margin above 0 and at most 2, got {self.dimensions} and "
                f"{self.margin}: directions are no farther apart"
            )

    @property
    def outputs(self) -> int:
        """The dimensions."""
        return self.dimensions

    def refuse_targets(self, targets: Tensor, classes: int, where: str) -> None:
        """Raise `CompressionError` for targets that are not numbers of classes."""
        refuse_other_than_labels(targets, classes, where)

    def comparable(self, outputs: Tensor) -> Tensor:
        """Return the directions, vectors of length 1."""
        return F.normalize(outputs, dim=1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return half the mean over pairs of one class of their squared distance, plus half that over all other pairs.

        A pair of different classes at distance d costs max(0, margin - d)^2 (Hadsell, Chopra, LeCun 2006,
        Dimensionality reduction by learning an invariant mapping, CVPR, section 2.1). Both kinds of pairs weigh alike,
        though there are more of the second; a kind without a pair costs nothing. The paper's outputs have any length.
        """
        directions = self.comparable(outputs)
        squares = (2 - 2 * directions @ directions.T).clamp(min=0)
        alike = targets[:, None] == targets
        others = ~alike
        pairs = alike & ~torch.eye(len(targets), dtype=torch.bool)
        distances = squares.clamp(min=torch.finfo(squares.dtype).eps).sqrt()  # the slope at 0 is not finite
        apart = (self.margin - distances).clamp(min=0).square()
        return 0.5 * (_mean_where(squares, pairs) + _mean_where(apart, others))

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Raise `CompressionError`: only pairs of images have a loss."""
        raise CompressionError("the loss of an embedding is one of pairs of images: a single image has none")

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the directions (N, dimensions)."""
        return self.comparable(outputs)

    def correct(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Tell whether the nearest other image is of the same class (recall at 1); of one image alone it is not."""
        if len(answers) < 2:
            return torch.zeros(len(answers), dtype=torch.bool)
        nearest = [nearest_other(answers, rows) for rows in torch.arange(len(answers)).split(ROWS)]
        return targets[torch.cat(nearest)] == targets

    @property
    def criterion(self) -> str:
        """That of retrieval."""
        return "the nearest other image is of the same class"


def nearest_other(directions: Tensor, rows: Tensor) -> Tensor:
    """Return for each of `rows` (R,) the number (R,) of the other direction with the largest cosine; (N, K)."""
    cosines = directions[rows] @ directions.T
    cosines[torch.arange(len(rows)), rows] = -torch.inf
    return cosines.argmax(1)


def refuse_other_than_labels(targets: Tensor, classes: int, where: str) -> None:
    """Raise `CompressionError` for targets that are not numbers 0..`classes` - 1, int64 (N,)."""
    if targets.ndim != 1 or targets.dtype != torch.int64:
        raise CompressionError(f"{where} has labels {tuple(targets.shape)} of {targets.dtype}; they must be int64 (N,)")
    if int(targets.min()) < 0 or int(targets.max()) >= classes:
        raise CompressionError(f"{where} has labels outside 0..{classes - 1}")


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the `chosen` ones of `values`, 0 if there are none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
