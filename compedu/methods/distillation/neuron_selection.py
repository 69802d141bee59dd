"""Knowledge from neurons: a student learns those of its teacher's neurons that tell the classes apart, each once."""

import torch
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.datasets.objectives import CLASSIFICATION
from compedu.errors import CompressionError
from compedu.evaluation import BATCH
from compedu.knobs import inherited, knob, method
from compedu.methods.distillation.fit_nets import hint_loss
from compedu.methods.distillation.shared.feature_distillation import FeatureDistillation
from compedu.methods.distillation.shared.features import features_of, regressor
from compedu.training import Companion

ROUNDING = 1e-10  # a share of a variance that is smaller is 0 up to rounding, also that of a copy in float32


def separations(neurons: Tensor, labels: Tensor) -> Tensor:
    """Return the share (F,) of the variance of `neurons` (N, F) that the classes explain; `labels` (N,).

    It is the correlation ratio, the variance between the classes over that of all images, from 0 to 1; 0 for a neuron
    that gives the same for all images.
    """
    counts = torch.bincount(labels)
    sums = neurons.new_zeros(len(counts), neurons.shape[1]).index_add(0, labels, neurons)
    means = sums / counts.clamp(min=1)[:, None]  # a class without images has no weight below
    mean = neurons.mean(0)
    between = (counts[:, None] * (means - mean).square()).sum(0)
    total = (neurons - mean).square().sum(0)
    return (between / total).masked_fill(_constant(neurons), 0.0)


def select_neurons(neurons: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the numbers of the selected ones of `neurons` (N, F), at most `count`, the first one first; `labels` (N,).

    The next one has the largest product of two shares of its variance: the one that the classes explain, and the one
    that no neuron selected so far explains, 1 - r^2 with the largest correlation r. The scale of a neuron does not
    matter. It ends early where every other neuron tells nothing: the same for all images, or a copy of a selected one.
    """
    values = neurons.double()
    separation = separations(values, labels)
    centered = values - values.mean(0)
    directions = (centered / centered.norm(dim=0)).masked_fill(_constant(values), 0.0)
    left = torch.ones_like(separation)
    chosen: list[int] = []
    for _ in range(count):
        gain = separation * left
        gain[chosen] = 0.0
        if gain.max() < ROUNDING:
            break
        chosen.append(int(gain.argmax()))
        correlations = directions[:, chosen[-1]] @ directions
        left = torch.minimum(left, 1 - correlations.square())
    return torch.tensor(chosen, dtype=torch.int64)


def _constant(neurons: Tensor) -> Tensor:
    """Tell which neurons (F,) give the same for all images: their variance may round to something above 0."""
    return neurons.amax(0) == neurons.amin(0)


@method
class NeuronSelection(FeatureDistillation):
    r"""Train a student on the labels and on selected neurons of its teacher's top hidden layer, as a regression.

    $L = \mathrm{CE}(y, p) + \frac{\lambda}{2}\,\mathrm{mean}_{k \in K} (r_k(h_S) - h_{T,k})^2$ with a linear regressor
    $r$ that trains beside the student and is then discarded. $K$ grows by
    $\arg\max_k \eta_k^2\,(1 - \max_{j \in K} \rho_{jk}^2)$ over the training images, up to the `share` and as long as
    the product is above 0, with the share $\eta_k^2$ of a neuron's variance that the classes explain and the
    correlation $\rho_{jk}$ of two neurons; the paper selects by what is known of representations of faces. $\lambda$ is
    `strength`. Selection and the loss of the labels need classes.
    Stored: the student's layers, dense, at full precision; nothing of the teacher or the regressor.
    Skips: neurons that give the same for all images or copy a selected one, so that fewer than `share` may be left;
    layers that give no vector of neurons, or none that tells the classes apart, are refused by name.
    Paper: Luo, Zhu, Liu, Wang, Tang 2016, Face model compression by distilling knowledge from neurons, AAAI.
    """

    compared: str = inherited(
        FeatureDistillation,
        "compared",
        help="layers whose neurons are learned: what the last layers read (embedding), the last maps of each size "
        "(resolutions), which are not vectors, or pairs such as 'fc1=fc1', the student's layer first",
    )
    strength: float = inherited(
        FeatureDistillation,
        "strength",
        slider_range=(0.01, 100),
        help="weight of the neurons beside the labels; for any network with a layer of neurons below its last one",
    )
    share: float = knob(
        default=0.5,
        help="share of the teacher's neurons that are selected, rounded to whole ones, at least one; fewer where "
        "the others tell nothing",
        low=0,
        high=1,
        open="low",
        slider_range=(0.05, 1),
    )

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Classification: neurons are selected by how well they tell the classes apart."""
        return (CLASSIFICATION,)

    def teach(self, student: nn.Module, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Select the neurons of the teacher, train `student` in place on them, and return it."""
        pairs = self.pairs_of(student, teacher, data.example)
        chosen = tuple(self.selection(teacher, layer, data) for _, layer in pairs)
        return self.stage(student, teacher, data, pairs, self.epochs, chosen)

    def selection(self, teacher: nn.Module, layer: str, data: Dataset) -> Tensor:
        """Return the numbers of the selected neurons of `layer`, by the training images and their labels.

        Takes memory for the layer's outputs for all of them, in float64. Raises `CompressionError` for outputs that are
        not vectors, and where no neuron tells the classes apart.
        """
        (one,) = features_of(teacher, (layer,), data.example, self._teacher)
        if one.ndim != 2:
            raise CompressionError(
                f"{self!r}: layer {layer!r} of the teacher gives {tuple(one.shape[1:])} for an image; neurons are "
                "selected from a vector: choose a linear layer or what follows it, as with compared='embedding'"
            )
        parts = data.x_train.split(BATCH)
        neurons = torch.cat([features_of(teacher, (layer,), part, self._teacher)[0] for part in parts])
        chosen = select_neurons(neurons, data.y_train, max(1, round(self.share * one.shape[1])))
        if len(chosen) == 0:
            raise CompressionError(
                f"{self!r}: no neuron of layer {layer!r} of the teacher tells the classes of the training images "
                "apart; choose another layer, or a teacher that was trained"
            )
        return chosen

    def regressor(self, student: Tensor, teacher: Tensor, seed: int) -> Companion:
        """Return a linear layer from the student's features to the selected neurons."""
        return Companion(regressor(student, teacher, seed))

    def feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return half the squared difference, the mean over images and neurons."""
        return hint_loss(student, teacher)
