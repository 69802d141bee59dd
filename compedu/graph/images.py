"""Which layers read images: whether the inputs of a linear layer are, in order, the pixels of one image for a channel.

Pixels are followed by number, as channels are for their removal: the network's graph is run on arrays in which each
element is the number of the pixel that it was computed from.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from compedu.graph.coupling import Unfollowed
from compedu.graph.following import Follower
from compedu.graph.operations import ELEMENTWISE, POOLING, Call, moved, moves
from compedu.graph.own_hooks import has_own_forward
from compedu.graph.reading import followed
from compedu.graph.trace import trace

Image: TypeAlias = tuple[int, int, int]  # channels, height, width

MAPS = 4  # dimensions of images and of feature maps


def images_read(model: nn.Module, example: Tensor) -> dict[str, Image]:
    """Return for each linear layer of `model` that reads whole images their channels, height and width, by its name.

    The inputs of such a layer are all pixels of the network's input, or of feature maps, channel after channel and row
    after row. Of `example`, a batch of inputs, only the shape matters. Raises `CompressionError` when the network
    cannot be traced, or does not run on such inputs.
    """
    found: dict[str, Image | None] = {}
    followed(model, trace(model), example, partial(_PixelFollower, found=found))
    return {name: image for name, image in found.items() if image is not None}


class _PixelFollower(Follower):
    """Follows the pixels of one image of the batch: `found` gets the image that each linear layer reads, or None."""

    def __init__(self, *given: Any, found: dict[str, Image | None]):
        super().__init__(*given)
        self.found = found
        self.images: dict[int, Image] = {}  # the number of the first pixel, and the shape

    def placeholder(self, target, args, kwargs):
        """Return the numbers of the pixels of the network's input."""
        ids = super().placeholder(target, args, kwargs)
        return self.new_image(ids.shape) if isinstance(ids, Tensor) and ids.dim() == MAPS else ids

    def call_module(self, target, args, kwargs):
        """Follow a module, unless it runs a function of the user's."""
        if has_own_forward(self.model.get_submodule(target)):
            raise Unfollowed("which has a forward of its own")
        return super().call_module(target, args, kwargs)

    def layer(self, name: str, layer: nn.Module, dim: int, ids: Tensor) -> Tensor:
        """Record what a linear layer reads; return the numbers of its output."""
        if self.passes(layer) and not isinstance(layer, nn.Conv2d):  # a norm, which treats each pixel on its own
            return ids
        if isinstance(layer, nn.Linear):
            image = self.image_of(ids) if ids.dim() == 2 else None
            self.found[name] = image if self.found.setdefault(name, image) == image else None
        return self.next_image(ids)

    def through(self, name: str, call: Call, shape: Sequence[int] | None) -> Any:
        """Return the numbers after an operation that moves pixels, treats each on its own, or makes new ones."""
        if moves(name, call):
            return moved(name, call)
        first = call.tensors[0]
        if name in ELEMENTWISE and len(call.tensors) == 1:
            return first
        if name in ELEMENTWISE or POOLING.match(name):
            return self.next_image(first)
        raise Unfollowed("whose effect on pixels is not known")

    def next_image(self, ids: Tensor) -> Tensor:
        """Return new numbers for the result of the current node, if `ids` are an image and that is one."""
        shape = self.made[self.node].shape
        if len(shape) == MAPS and ids.dim() == MAPS and self.image_of(ids) == tuple(ids.shape[1:]):
            return self.new_image(shape)
        return self.fixed(self.made[self.node], f"the result of {self.here()}")

    def new_image(self, shape: Sequence[int]) -> Tensor:
        """Return numbers for images of `shape` (N, channels, height, width), equal for all N."""
        batch, channels, height, width = shape
        ids = self.coupling.new(channels * height * width)
        self.images[int(ids[0])] = (channels, height, width)
        return ids.reshape(1, channels, height, width).expand(batch, -1, -1, -1)

    def image_of(self, ids: Tensor) -> Image | None:
        """Return the shape of the image whose pixels `ids` (N, ...) are in order, None where they are none."""
        flat = ids.flatten(1)
        image = self.images.get(int(flat[0, 0])) if flat.numel() else None
        if image is None or flat.shape[1] != math.prod(image):
            return None
        return image if bool((flat == flat[0, 0] + torch.arange(flat.shape[1])).all()) else None
