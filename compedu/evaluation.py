"""Loss and predictions of a network on a split, at once or batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compedu.datasets.dataset import Dataset, refuse_no_data
from compedu.datasets.objectives import CLASSIFICATION, Objective
from compedu.errors import Cancelled, CompressionError, first_line
from compedu.failing import raised_by_hook
from compedu.given import refuse_no_network
from compedu.graph.copying import whole_copy
from compedu.reproducible import seeded

BATCH = 256
PROBED = 16  # images on which probabilities are told from logits


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions of a network for the first `seen` of `of` images of a split, and their mean loss.

    Of a classification predictions and labels are numbers of classes (N,), and the loss is in nats; else they are the
    answers and targets of the `objective`. The loss of an embedding is the mean over batches.
    """

    predictions: Tensor
    labels: Tensor
    loss: float
    of: int
    objective: Objective

    @property
    def seen(self) -> int:
        """The number of images evaluated so far."""
        return len(self.predictions)

    @property
    def is_correct(self) -> Tensor:
        """Whether the prediction is correct, for each image evaluated so far."""
        return self.objective.correct(self.predictions, self.labels[: self.seen])

    @property
    def correct(self) -> int:
        """The number of correct predictions."""
        return int(self.is_correct.sum())


def evaluating(model: nn.Module, data: Dataset, split: str = "validation", batch: int = BATCH) -> Iterator[Evaluation]:
    """Yield the evaluation of `model` on `split` after 1, 4, 16, ... batches and at the end.

    Of an embedding it is only known at the end. The model is put into evaluation mode. Raises `CompressionError` when
    the network does not fit the images, and `TypeError` for what is not a network, or not a data set.
    """
    refuse_no_network(model)
    refuse_no_data(data)
    x, y = data.split(split)
    model.eval()
    predictions = []
    losses = 0.0
    publish_at = 1
    for index, start in enumerate(range(0, len(x), batch), start=1):
        logits = logits_of(model, x[start : start + batch], data)
        losses += len(logits) * data.objective.loss(logits, y[start : start + batch]).item()
        predictions.append(data.objective.answers(logits))
        done = start + batch >= len(x)
        if done or (index == publish_at and data.objective.one_by_one):
            publish_at *= 4
            seen = torch.cat(predictions)
            yield Evaluation(seen, y, losses / len(seen), len(x), data.objective)


def evaluate(model: nn.Module, data: Dataset, split: str = "validation", batch: int = BATCH) -> Evaluation:
    """Return the evaluation of `model` on all images of `split`."""
    *_, last = evaluating(model, data, split, batch)
    return last


def all_logits(model: nn.Module, x: Tensor, data: Dataset, batch: int = BATCH) -> Tensor:
    """Return the logits (N, classes) of all images x, batch by batch; the outputs, where there are no classes."""
    return torch.cat([logits_of(model, part, data) for part in x.split(batch)])


def glance(model: nn.Module, x: Tensor, y: Tensor, data: Dataset) -> float:
    """Return the accuracy on images x with labels y in the middle of a training, without affecting it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        answers = data.objective.answers(logits_of(model, x, data))
        return data.objective.correct(answers, y).float().mean().item()
    finally:
        for module, training in modes:
            module.training = training


class QuickPooling(TorchFunctionMode):
    """Computes max pooling by twos from slices, with the results of torch, whose own takes ten times as long."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.max_pool2d, F.max_pool2d) and _by_twos(*args, **kwargs):
            x = args[0] if args else kwargs["input"]
            height, width = (2 * (size // 2) for size in x.shape[-2:])
            rows = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
            return torch.maximum(rows[..., 0::2], rows[..., 1::2])
        return function(*args, **kwargs)


def _by_twos(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False) -> bool:
    """Tell whether max pooling with these arguments takes the maximum of each square of two by two."""
    stride = stride if stride is not None and stride != [] else kernel_size
    wanted = ((kernel_size, 2), (stride, 2), (padding, 0), (dilation, 1))
    return (
        all(given in (n, (n, n), [n, n]) for given, n in wanted)
        and not (ceil_mode or return_indices)
        and input.layout == torch.strided
        and input.is_floating_point()
        and input.is_contiguous()
        and min(input.shape[-2:]) >= 2
    )


@torch.inference_mode()
def logits_of(model: nn.Module, x: Tensor, data: Dataset) -> Tensor:
    """Return the logits (N, classes) of images x; a network that does not fit the images is one clear error.

    Where the objective of `data` is not classification, these are the outputs that it needs.
    A network that draws random numbers even in evaluation mode draws the same ones each time.
    """
    try:
        with seeded(0), QuickPooling():
            logits = model(x)
    except (CompressionError, Cancelled):
        raise
    except Exception as error:  # torch and torchvision raise one of these for wrong sizes, a hook anything
        if hook := raised_by_hook(model, error):
            raise CompressionError(f"{hook}; fix or remove it") from error
        if not isinstance(error, (RuntimeError, ValueError, AssertionError)):
            raise
        raise CompressionError(
            f"the network {getattr(model, 'spec', type(model).__name__)} cannot take images of {data.name!r}, shape "
            f"{tuple(x.shape[1:])}: {first_line(error)}; {_cure(model, x)}"
        ) from error
    if not isinstance(logits, Tensor):
        raise CompressionError(
            f"the network {type(model).__name__} returns {shape_of(logits)}; it must return one tensor of logits "
            "(images, classes)"
        )
    _refuse_other_outputs(logits, data)
    return logits


def _refuse_other_outputs(outputs: Tensor, data: Dataset) -> None:
    """Raise `CompressionError` for a network with fewer outputs than classes, or another number than is asked for."""
    exact = data.objective.outputs is not None
    fits = outputs.ndim == 2 and outputs.shape[1] >= data.outputs
    if not fits or (exact and outputs.shape[1] > data.outputs):
        kind = "outputs" if exact else "classes"
        raise CompressionError(
            f"the network returns {'outputs' if exact else 'logits'} of shape {tuple(outputs.shape[1:])}, but "
            f"{data.name!r} has {data.outputs} {kind}; build it with classes={data.outputs}"
        )


def _cure(model: nn.Module, x: Tensor) -> str:
    """Say what makes `model` take the images x, which it refused."""
    others = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()} - {x.dtype}
    if not others:
        return "build it with this size and these channels"
    return f"its weights are {min(others, key=str)}, the images {x.dtype}: give model.to({x.dtype})"


def refuse_misfit(model: nn.Module, data: Dataset) -> None:
    """Raise `CompressionError` if `model` does not fit the images of `data`, or if a forward pass changes it.

    The first error is that of `logits_of`. The second is for a network that answers differently for the same image when
    it runs again, and for one whose forward pass writes into parameters or puts modules into training mode. A copy
    runs, not `model` itself.
    """
    tried = whole_copy(model).eval()
    first, again = (logits_of(tried, data.example, data).double() for _ in range(2))
    given = dict(model.named_parameters())
    changes = [f"writes into {name}" for name, found in tried.named_parameters() if not _same(found, given.get(name))]
    changes += [f"puts {name or 'itself'} into training mode" for name, part in tried.named_modules() if part.training]
    scale = float(first.nan_to_num(0, 0, 0).abs().max())
    if not torch.allclose(first, again, rtol=1e-3, atol=1e-3 * scale, equal_nan=True):
        changes.append("answers differently for the same image when it runs again")
    if changes:
        raise CompressionError(
            f"{type(model).__name__} changes with each forward pass: it {changes[0]}, so its accuracy depends on how "
            "often it ran; take that out of its forward, or run it once beforehand if that settles it"
        )


def _same(found: Tensor, given: Tensor | None) -> bool:
    return given is not None and found.dtype == given.dtype and torch.equal(found, given)


def refuse_probabilities(model: nn.Module, data: Dataset) -> None:
    """Raise `CompressionError` if `model` returns probabilities: the loss would take them for logits.

    Outputs that are non-negative and sum to 1 for each of a few images are taken for those of a softmax. Log
    probabilities are valid logits: softmax maps them to the probabilities themselves. Outputs without classes are none.
    """
    if data.objective.kind != CLASSIFICATION:
        return
    logits = logits_of(model, data.x_train[:PROBED], data)
    sums = logits.double().sum(1)
    if logits.shape[1] > 1 and bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        raise CompressionError(
            f"the network {type(model).__name__} ends in a softmax: it returns probabilities, which sum to 1, but the "
            "loss needs the logits before it (a second softmax would flatten them); return the logits instead"
        )


def shape_of(outputs: object) -> str:
    """Describe what a network returned: the shapes of tensors, the types of anything else."""
    if isinstance(outputs, (tuple, list)):
        return f"({', '.join(map(shape_of, outputs))})"
    return str(tuple(outputs.shape)) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
