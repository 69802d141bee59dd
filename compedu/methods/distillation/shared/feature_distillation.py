"""The base of distillation by features: the loss of the labels, and one for each pair of layers that is compared."""

import difflib
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.knobs import knob, method
from compedu.methods.distillation.shared.compared import ALLOWED, EMBEDDING, FOUND, Pairs, found_pairs, named_pairs
from compedu.methods.distillation.shared.distillation import Distillation, Lesson


@method
class FeatureDistillation(Distillation):
    """Train a student on the labels and on features of its teacher; a subclass defines the loss of one pair of layers.

    The teacher's logits do not count. With `strength` 0 the student learns alone.
    """

    alone: ClassVar[dict[str, Any]] = {"strength": 0.0}

    compared: str = knob(
        default=EMBEDDING,
        help="layers whose outputs are compared: what the last layers read (embedding), the last maps of each size "
        "(resolutions), or pairs such as 'conv1=conv1, input of fc1=last', the student's layer first",
    )
    strength: float = knob(
        default=1.0,
        help="weight of the features' loss beside the loss of the labels",
        low=0,
        high=1e6,
        slider_range=(1e-2, 1e4),
        log=True,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.compared not in FOUND:
            named_pairs(self.compared, f"{type(self).__name__}.compared")

    def pairs_of(self, student: nn.Module, teacher: nn.Module, image: Tensor) -> Pairs:
        """Return the pairs that are listed, or those that the word means in these networks.

        Raises `CompressionError` for a layer that is not there.
        """
        if self.compared in FOUND:
            return found_pairs(self.compared, student, teacher, image, repr(self))
        pairs = named_pairs(self.compared, f"{type(self).__name__}.compared")
        try:
            return self.named(pairs, student, teacher, image)
        except CompressionError as error:
            likely = difflib.get_close_matches(self.compared, FOUND, n=1)
            hint = f"did you mean {likely[0]!r}? " if likely else ""
            raise CompressionError(f"{error}; {hint}compared takes {ALLOWED}") from error

    @property
    def least_images(self) -> int:
        """The fewest images of a batch for which the features' loss says anything; a subclass may need several."""
        return 1

    def teach(self, student: nn.Module, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Train `student` in place and return it; refuse batches that are too small for the features' loss."""
        self.refuse_small_batches(len(data.x_train))
        return super().teach(student, teacher, data)

    def refuse_small_batches(self, images: int) -> None:
        """Raise `CompressionError` if an epoch over so many training images has a batch without features to compare.

        The loss of the features would be zero there, without a word. With `strength` 0 they do not count.
        """
        smallest = self.recipe.smallest_batch(images)
        least = self.least_images
        if self.strength == 0 or smallest >= least:
            return
        sizes = [
            batch
            for batch in range(least, images + 1)
            if replace(self.recipe, batch=batch).smallest_batch(images) >= least
        ]
        cure = f"choose batch={min(sizes, key=lambda size: abs(size - self.batch))}" if sizes else "give more images"
        raise CompressionError(
            f"{self!r} compares images of a batch and needs {least} in each; {images} training images in batches of "
            f"{self.batch} leave {smallest} for the last one of an epoch: {cure}, or strength=0 for the labels alone"
        )

    @abstractmethod
    def feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of the features (N, ...) of one pair for a batch."""

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the loss of the labels plus `strength` times the sum of the losses of all pairs."""
        losses = torch.stack([self.feature_loss(*features) for features in lesson.features])
        return lesson.supervised + self.strength * losses.sum()
