"""A validation split for data with only a training and a test split."""

from torch import Tensor

from compedu.datasets.dataset import Dataset, fixed_order, normalized

VALIDATION = 5000


def with_validation(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    classes: tuple[str, ...],
    mean: float,
    std: float,
    version: str = "",
    origin: str = "",
) -> Dataset:
    """Return a data set from uint8 images and labels, with a validation split drawn from the training images.

    It has 5,000 images, or a fifth of the training images if these are fewer than 25,000; always the same ones.
    """
    order = fixed_order(len(train[1]), seed=0)
    held_out = min(VALIDATION, len(order) // 5)
    x = normalized(train[0], mean, std)
    y = train[1]
    return Dataset(
        name,
        x_train=x[order[held_out:]],
        y_train=y[order[held_out:]],
        x_validation=x[order[:held_out]],
        y_validation=y[order[:held_out]],
        x_test=normalized(test[0], mean, std),
        y_test=test[1],
        classes=classes,
        mean=mean,
        std=std,
        version=version,
        origin=origin,
    )
