"""Which linear layers read images: found by following pixels, and nothing is guessed."""

import pytest
import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.graph.images import images_read
from compedu.networks import build
from compedu.testing.networks import normalized, normalized_linear

EXAMPLE = torch.zeros(2, 1, 28, 28)


class Network(nn.Module):
    """The images through `between`, which gives (N, 784), then a linear layer."""

    def __init__(self, between):
        super().__init__()
        self.between = between
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.fc = nn.Linear(784, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc(self.between(self, x)).relu())


WHOLE = {
    "flattened": lambda self, x: x.flatten(1),
    "a view": lambda self, x: x.view(x.size(0), -1),
    "hard-coded sizes": lambda self, x: x.reshape(-1, 784),
    "scaled, moved there and back": lambda self, x: (2 * x - 1).transpose(2, 3).transpose(2, 3).flatten(1),
    "feature maps": lambda self, x: self.conv(x).relu().flatten(1),
    "a shortcut": lambda self, x: (x + self.conv(x)).flatten(1),
    "dropout after flattening": lambda self, x: nn.functional.dropout(x.flatten(1), 0.5, self.training).tanh(),
}
NONE = {
    "columns first": lambda self, x: x.transpose(2, 3).flatten(1),
    "mirrored": lambda self, x: x.flip(3).flatten(1),
    "half of it twice": lambda self, x: torch.cat([x[:, :, :14].flatten(1), x[:, :, :14].flatten(1)], 1),
    "two halves swapped": lambda self, x: torch.cat([x[:, :, 14:].flatten(1), x[:, :, :14].flatten(1)], 1),
    "summed with its mirror image": lambda self, x: x.flatten(1) + x.flatten(1).flip(1),
    "mixed over the batch": lambda self, x: x.flatten(1) - x.flatten(1).mean(0, keepdim=True),
    "sorted": lambda self, x: x.flatten(1).sort(1).values,
    "a map of scores": lambda self, x: (x.flatten(2).transpose(1, 2) @ x.flatten(2))[:, :1].flatten(1),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_layer_that_reads_a_whole_image_in_order_is_found(kind):
    assert images_read(Network(WHOLE[kind]).eval(), EXAMPLE) == {"fc": (1, 28, 28)}


@pytest.mark.parametrize("kind", NONE)
def test_anything_else_is_not_taken_for_an_image(kind):
    assert images_read(Network(NONE[kind]).eval(), EXAMPLE) == {}


def test_layers_behind_feature_maps_read_as_many_images_as_channels():
    assert images_read(build("lenet5(size=28, width=0.4)"), EXAMPLE) == {"fc1": (20, 4, 4)}
    assert images_read(build("lenet300(size=28)"), EXAMPLE) == {"fc1": (1, 28, 28)}
    assert images_read(normalized_linear(), EXAMPLE) == {"1": (1, 28, 28)}
    ((_, (_, height, width)),) = images_read(normalized(), EXAMPLE).items()
    assert (height, width) == (1, 1)


def test_a_layer_that_is_called_on_two_images_reads_none_of_them():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 2, 2)
            self.fc = nn.Linear(784, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.flatten(1)) + self.fc(self.conv(x).flatten(1))

    assert images_read(Twice().eval(), EXAMPLE) == {}


def test_an_activation_with_a_forward_of_its_own_may_do_anything():
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(784, 2)).eval()
    assert images_read(model, EXAMPLE) == {"2": (1, 28, 28)}
    model[0].forward = lambda x: x.flip(3)
    assert images_read(model, EXAMPLE) == {}


def test_what_cannot_be_traced_is_refused():
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CompressionError, match="Deciding cannot be traced"):
        images_read(Deciding(), EXAMPLE)
